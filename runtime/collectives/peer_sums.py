"""The sums of `_out` boundaries by collectives of our own, alone or with the residual add and the norm that follow."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial as fixed

from torch import Tensor, nn

from commplan.planner.strategy_file import Layout, Op, is_finer

from ..counters import Place
from ..groups import Groups
from ..sizes import Sizes
from .layouts import Rows, as_it_is, in_zeros, slicer
from .peers import Peers

Normed = Callable[[Tensor, Tensor | None, Sizes, nn.Module], tuple[Tensor, Tensor]]
"""(partial, residual in the sum's layout or None where the partial carries it, sizes, norm) to (normed, residual)."""


def peer_sum(place: Place, groups: Groups, peers: Peers, partial: Layout) -> Rows:
    """The op of a place by one kernel. No copy to pad: the kernels take any number of rows."""
    op, destination, attn_tp = place.op, place.after.hidden, groups.attn_tp.size
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "all_reduce": peers.all_reduce,
        "int8_all_reduce": fixed(peers.int8_all_reduce, algorithm=op.algorithm or "gather"),
        "reduce_scatter": peers.reduce_scatter,
        "all_reduce_all_gather": fixed(peers.gather_sum, attn_tp=attn_tp),
        "reduce_scatter_all_reduce": fixed(peers.scatter_sum, attn_tp=attn_tp),
    }
    call = calls[op.name]
    if op.name not in ("all_reduce", "int8_all_reduce"):
        return lambda x, sizes: call(x.contiguous())  # noqa: ARG005
    before = in_zeros(groups) if is_finer(partial, destination) else as_it_is
    cut = slicer(groups, partial, destination) if is_finer(destination, partial) else as_it_is
    return lambda x, sizes: cut(call(before(x, sizes).contiguous()), sizes)


def peer_norm(place: Place, groups: Groups, peers: Peers, partial: Layout) -> Normed:
    """The op of a place, the residual add and the norm by one kernel."""
    op = place.op
    before = in_zeros(groups) if op.name == "all_reduce" and is_finer(partial, place.after.hidden) else as_it_is
    call = _with_norm(op, peers)

    def run(x: Tensor, residual: Tensor | None, sizes: Sizes, norm: nn.Module) -> tuple[Tensor, Tensor]:
        whole = None if residual is None else residual.contiguous()
        weight: Tensor = norm.weight  # type: ignore[assignment]
        return call(before(x, sizes).contiguous(), whole, weight, norm.variance_epsilon)  # type: ignore[arg-type]

    return run


def _with_norm(op: Op, peers: Peers) -> Callable[[Tensor, Tensor | None, Tensor, float], tuple[Tensor, Tensor]]:
    if op.name == "reduce_scatter":
        return peers.reduce_scatter_norm
    if op.name == "all_reduce":
        return peers.all_reduce_norm
    algorithm = op.algorithm or "gather"
    return lambda x, residual, weight, eps: peers.int8_all_reduce_norm(x, algorithm, residual, weight, eps)
