"""From the partial rows of an `_out` boundary over the residual add and the norm, where that is the plan's to do.

A server sums complete rows and adds them to a complete residual by itself. Everything else a plan may have there: a
kernel that does the norm as well, rows or a residual in shards, a sum that carries the residual.
"""

from __future__ import annotations

from torch import Tensor, nn

from commplan.planner.strategy.file import REPLICATED, Op, State

from ..bound.bound_ops import BoundIn, BoundOut
from ..bound.program import Program
from ..bound.sizes import Sizes
from ..kernels.peer_impls import fuses_norm


def crosses(op: Op, before: State, after: State) -> bool:
    """Does this op at attn_out or mlp_out, without attention DP, need the add and the norm behind it done with it?"""
    return fuses_norm(op.impl) or {before.residual, after.residual, after.hidden} != {REPLICATED}


def sum_add_and_norm(
    bound: BoundOut, partial: Tensor, residual: Tensor, sizes: Sizes, norm: nn.Module
) -> tuple[Tensor, Tensor]:
    """(normed rows, new residual) in the layout that the op leaves, of [T, H] partial rows and the residual before it.

    Both inputs may be written over. The results never share memory with `partial`, which SGLang may hand to an MLP as
    room for its output.
    """
    carried: Tensor | None = residual
    if bound.fold is not None:
        partial, carried = bound.fold(partial, residual, sizes), None
    else:
        carried = bound.residual(residual, sizes)
    if bound.norm is not None:
        return bound.norm(partial, carried, sizes, norm, True)
    summed = bound.sum(partial, sizes)
    if carried is not None:
        normed, carried = norm(summed, carried)
        return normed, carried
    if summed.untyped_storage().data_ptr() == partial.untyped_storage().data_ptr():
        summed = summed.clone()
    return norm(summed), summed


def follower(program: Program, layer: int, boundary: str) -> BoundIn:
    """The `_in` boundary behind attn_out or mlp_out of a layer."""
    if boundary == "attn_out":
        return program.layers[layer].mlp_in
    return program.layers[layer + 1].attn_in if layer + 1 < len(program.layers) else program.head_in


__all__ = ["crosses", "follower", "sum_add_and_norm"]
