"""One file per family of architectures: which names it has on Hugging Face, and how its config.json becomes ours.

A file defines ARCHITECTURES, a tuple of Architecture; adding a family is adding a file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..config_json import ConfigJson

Fields = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """A Hugging Face architecture name and the reading of its config.json.

    `read(config)` returns the fields of a commplan model.
    """

    name: str
    read: Callable[[ConfigJson], Fields]


@cache
def known() -> dict[str, Architecture]:
    """All architectures by name."""
    found: dict[str, Architecture] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        for architecture in importlib.import_module(f".{module.name}", __name__).ARCHITECTURES:
            found[architecture.name] = architecture
    return found
