"""Rows that a GEMM makes: what stands before a sum whose rows are pushed, and is taken off its time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from commplan.planner.strategy.op_kinds import PUSHED_INNER

Call = Callable[[], Any]


class MadeRows:
    """Fills rows of a message [T, H] as the linear before a sum does, at once or piece by piece."""

    def __init__(self, out_TH: Tensor) -> None:
        rows, width = out_TH.shape
        self._out = out_TH
        self._left = out_TH.new_empty(rows, PUSHED_INNER).normal_()
        self._right = out_TH.new_empty(PUSHED_INNER, width).normal_().div_(PUSHED_INNER**0.5)

    def make(self, first: int, last: int) -> None:
        """Rows [first, last)."""
        torch.mm(self._left[first:last], self._right, out=self._out[first:last])

    def pushed(self, push: Call, rest: Call, other: Call) -> Call:
        """A sum whose rows are made meanwhile: `push` has them made, `rest` follows; then `other`, a sum such as stands
        between two uses of a half of the workspace in a layer."""

        def call() -> None:
            push()
            rest()
            other()

        return call

    def besides(self, other: Call) -> Call:
        """What of that is not the sum."""

        def call() -> None:
            self.make(0, len(self._out))
            other()

        return call
