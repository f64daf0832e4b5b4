"""Ending a server's process with one line. Servers log exceptions of plugins and go on; SystemExit alone ends them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from commplan.planner.strategy.file import CommplanError


def stop(error: CommplanError) -> NoReturn:
    """Say why on standard error, and end this process."""
    tell(error)
    raise SystemExit(error.exit_code)


def tell(error: CommplanError) -> None:
    """Say why on standard error."""
    sys.stdout.flush()
    print(f"commplan: error: {error}", file=sys.stderr, flush=True)


def or_stop(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """The result of a call; an error meant for the user ends the process."""
    try:
        return function(*args, **options)
    except CommplanError as error:
        stop(error)
