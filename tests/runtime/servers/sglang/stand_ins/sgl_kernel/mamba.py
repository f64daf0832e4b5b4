"""Imported by SGLang at start, never called by a decoder with attention."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return None
