"""torch.compile: what makes every (mode, range) a graph of its own."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any


def own_code(inner: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A call of `inner` with a code object of its own: torch.compile keeps graphs, guards and their limit by code."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    return FunctionType(run.__code__.replace(co_name=name), run.__globals__, name, None, run.__closure__)
