"""torch.compile: one graph per (mode, range)."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ..bound.program import Program


class Graphs:
    """Compiled forwards, made on first use. `options` are torch.compile's."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = {"fullgraph": True, "dynamic": True, **options}
        self._made: dict[tuple[str, int], Callable[..., Any]] = {}

    def of(self, program: Program, inner: Callable[..., Any]) -> Callable[..., Any]:
        """The forward `inner` as a graph of this program's mode and range."""
        key = program.mode, program.index
        if key not in self._made:
            self._made[key] = torch.compile(own_code(inner, f"{key[0]}_{key[1]}"), **self._options)
        return self._made[key]

    def forget(self) -> None:
        """The plan is another one."""
        self._made = {}


def own_code(inner: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A call of `inner` with a code object of its own: torch.compile keeps graphs, guards and their limit by code."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    return FunctionType(run.__code__.replace(co_name=name), run.__globals__, name, None, run.__closure__)
