"""The sums of `_out` boundaries by collectives of our own, alone or with the residual add and the norm that follow."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from commplan.planner.strategy.file import Layout, Op, Rows, is_finer

from ..kernels.peers import Make, Peers, Told, bare, with_norm
from ..ranks.groups import Groups
from .counts import Place
from .layouts import Call, as_it_is, in_zeros, slicer
from .sizes import Sizes

Normed = Callable[[Tensor, Tensor | None, Sizes, nn.Module, bool], tuple[Tensor, Tensor]]
"""(partial, residual in the sum's layout or None where the partial carries it, sizes, norm, whether nobody else has the
residual's memory) to (normed, residual)."""


def _way(op: Op) -> Told:
    return Told(op.algorithm, op.wire_name, op.scale_group)


def peer_sum(place: Place, groups: Groups, peers: Peers, partial: Layout) -> Call:
    """The op of a place by one kernel. No copy to pad: the kernels take any number of rows."""
    op, destination = place.op, place.after.hidden
    call = bare(peers, op.kind, _way(op), groups.attn_tp.size)
    if op.kind.rows is not Rows.SUMMED:
        return lambda x, sizes: call(x.contiguous())  # noqa: ARG005
    before = in_zeros(groups) if is_finer(partial, destination) else as_it_is
    cut = slicer(groups, partial, destination) if is_finer(destination, partial) else as_it_is
    return lambda x, sizes: cut(call(before(x, sizes).contiguous()), sizes)


def peer_norm(place: Place, groups: Groups, peers: Peers, partial: Layout) -> Normed:
    """The op of a place, the residual add and the norm by one kernel."""
    op = place.op
    before = in_zeros(groups) if op.kind.widens and is_finer(partial, place.after.hidden) else as_it_is
    call = with_norm(peers, op.kind, _way(op))

    def run(x: Tensor, residual: Tensor | None, sizes: Sizes, norm: nn.Module, owned: bool) -> tuple[Tensor, Tensor]:
        whole = None if residual is None else residual.contiguous()
        weight: Tensor = norm.weight  # type: ignore[assignment]
        eps: float = norm.variance_epsilon  # type: ignore[assignment]
        return call(before(x, sizes).contiguous(), whole, weight, eps, overwrite=owned)

    return run


_HALVES = {"attn_out": 0, "mlp_out": 1}
"""Of the workspace of pushed rows, by boundary: between two uses of one there is the other's sum, by whatever op."""


def pusher(place: Place, peers: Peers) -> Callable[[Tensor, Make], None]:
    """Has the rows that the op of a place sums made, and sends them meanwhile."""
    half = _HALVES[place.boundary]
    return lambda x, make: peers.push(x, half, make)
