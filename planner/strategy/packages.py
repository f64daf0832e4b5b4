"""Packages that only some commands need: looked for before anything is started, and how to install them.

commplan is installed from a checkout, so that is what the advice is for: `pip install '.[runtime]'` there.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from .errors import InputError

CHECKOUT = "in a checkout of commplan"


def install(extra: str) -> str:
    """The command that installs an extra of commplan's, and where it works."""
    return f"pip install '.[{extra}]' {CHECKOUT}"


def check_packages(*modules: str, extra: str, field: str | None = None) -> None:
    """Raise InputError for the first of the modules that is not installed. Imports none of them."""
    for module in modules:
        if not is_installed(module):
            raise missing(module, extra, field)


def missing(package: str, extra: str, field: str | None = None) -> InputError:
    """The error for a package that is not there."""
    return InputError(f"needs {package}: {install(extra)}", kind="missing_package", field=field, value=package)


def is_installed(module: str) -> bool:
    """Could it be imported? A module that was made unavailable counts as missing."""
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
