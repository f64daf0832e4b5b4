"""Rows that are pushed while SGLang's linears make them: piece by piece into memory that the plan provides.

The rows that attention and a dense MLP leave come from one GEMM, that of a RowParallelLinear, whose forward may be
given the memory for its output. So where a plan pushes rows it runs once for every piece, and each piece travels while
the next is made. Everything else about the linear is as SGLang has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from commplan.planner.strategy.file import StrategyFile

from ...errors import RefusedError
from ...kernels.peer_impls import TRITON_NORM, peer_uses
from ..forward import Forwards

LINEAR = "sglang.srt.layers.linear.RowParallelLinear.forward"
_LINEARS = {"attn_out": ("self_attn", "o_proj"), "mlp_out": ("mlp", "down_proj")}


class PushedRows:
    """The linears whose rows a plan pushes in some mode or range."""

    def __init__(self, file: StrategyFile, forwards: Forwards) -> None:
        self._forwards = forwards
        self._places = {(use.layer, use.boundary) for use in peer_uses(file) if use.op.is_pushed}
        self._linears: dict[int, tuple[int, str]] = {}

    def table(self) -> dict[str, Callable[..., Any]]:
        """Dotted path of a function of SGLang's -> the hook around it: where some rows are pushed."""
        return {LINEAR: self.around_linear} if self._places else {}

    def find(self, runner: Any) -> None:
        """Look for the linears in the model of a ModelRunner; RefusedError for one that cannot run piece by piece."""
        for number, layer in enumerate(runner.model.model.layers if self._places else ()):
            for boundary, (block, name) in _LINEARS.items():
                if (number, boundary) in self._places:
                    linear = getattr(getattr(layer, block, None), name, None)
                    self._check(linear, f"layer {number} {boundary}", f"{block}.{name}")
                    self._linears[id(linear)] = number, boundary

    @staticmethod
    def _check(linear: Any, where: str, name: str) -> None:
        from sglang.srt.layers.linear import RowParallelLinear

        way = f"plan again with --set 'numerics.forbid=[{{op: all_reduce, impl: {TRITON_NORM}}}]'"
        if not isinstance(linear, RowParallelLinear):
            raise RefusedError(
                f"the plan pushes the rows of {name}, which this model has not; {way}",
                field=where,
                value=type(linear).__name__,
            )
        if not hasattr(linear.quant_method, "apply_into") or not linear.input_is_parallel:
            raise RefusedError(
                f"the plan pushes the rows of {name}, whose GEMM cannot write into memory that it is given; {way}",
                field=where,
                value=type(linear.quant_method).__name__,
            )

    def around_linear(self, forward: Callable[..., Any], linear: Any, x: Any, *args: Any, **options: Any) -> Any:
        """RowParallelLinear.forward: (rows, bias that is left to add), the rows on their way already."""
        place = self._linears.get(id(linear))
        given = args or options.get("output_tensor") is not None  # memory of the caller's
        if place is None or given or not self._forwards.pushes(*place):
            return forward(linear, x, *args, **options)
        rows = torch.empty((x.shape[0], linear.output_size), dtype=x.dtype, device=x.device)
        left = linear.bias if linear.skip_bias_add else None

        def make(first: int, last: int) -> None:
            forward(linear, x[first:last], skip_all_reduce=True, output_tensor=rows[first:last])

        self._forwards.push(*place, rows, make)
        return rows, left


__all__ = ["LINEAR", "PushedRows"]
