"""Backends: how the collectives and vendor kernels of one library are spelled. One file each, found by name."""

from __future__ import annotations

from importlib import import_module

from commplan.planner.strategy.vendors import BACKENDS

from ..errors import RefusedError
from .base import Backend


def load_backend(name: str) -> Backend:
    """The backend of a name; imports its library. Raises RefusedError for another name or a missing library."""
    if name not in BACKENDS:
        raise RefusedError(f"no such backend; accepted: {', '.join(BACKENDS)}", field="hardware.backend", value=name)
    try:
        backend: Backend = import_module(f".{name}", __name__).BACKEND()
    except ImportError as error:
        raise RefusedError(f"cannot be used here: {error}", field="hardware.backend", value=name) from None
    return backend


__all__ = ["Backend", "load_backend"]
