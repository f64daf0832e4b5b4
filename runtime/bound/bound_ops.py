"""An op bound to a boundary: layouts, groups and backend resolved once at start, so that a forward only calls.

At an `_out` boundary an op takes this rank's partial rows and the residual, and returns the summed rows and the
residual in the destination's layout (None where the sum carries it: a fold). At an `_in` boundary it takes normed rows
and returns the rows that the block consumes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from commplan.planner.strategy.file import DP_LOCAL, REPLICATED, Layout, sum_group

from ..backends import Backend
from ..collectives.row_moves import add_rows
from ..kernels.peer_impls import fuses_norm
from ..kernels.peers import Make, Peers
from ..ranks.groups import Group, Groups
from .composed_sums import ComposedSum, composed_norm, composed_sum
from .counts import Count, Place
from .layouts import Call, as_it_is, group_at, slicer
from .peer_sums import Normed, peer_norm, peer_sum, pusher
from .sizes import Sizes, offset
from .sums import library_sum

Gather = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class BoundIn:
    """An op at attn_in, mlp_in or head_in; of a gather also its group, and the bare collective [S, H] to [N * S, H]."""

    place: Place
    latent: bool
    run: Call
    count: Count
    group: Group | None = None
    gather: Gather | None = None


@dataclass(frozen=True, slots=True)
class BoundOut:
    """An op at embed_out, attn_out or mlp_out: `sum` for the partial, `residual` for the other stream.

    Where there is a `norm`, it does what `sum`, the residual add and the norm that follows would do. Where there is a
    `push`, the partial's rows are made by what it is given, and travel meanwhile. `read_ahead` is told the weights that
    are read behind the `norm`.
    """

    place: Place
    sum: Call
    fold: Callable[[Tensor, Tensor, Sizes], Tensor] | None
    residual: Call
    count: Count
    norm: Normed | None = None
    push: Callable[[Tensor, Make], None] | None = None
    read_ahead: Callable[[Tensor], None] | None = None


def bind_in(place: Place, groups: Groups, backend: Backend, count: Count, peers: Peers | None = None) -> BoundIn:
    """Bind an op of an `_in` boundary; `peers` perform it where its impl is ours."""
    op = place.op
    assert place.before is not None
    source, wanted = place.before.hidden, place.after.hidden
    if not op.kind.runs:
        return BoundIn(place, False, as_it_is, count)
    if not op.kind.gathers:
        return BoundIn(place, False, slicer(groups, source, wanted), count)
    group = group_at(place, groups)
    gather = _library_gather(backend, group) if peers is None else peers.all_gather

    def run(x: Tensor, sizes: Sizes) -> Tensor:
        return gather(x.contiguous())[: sizes.of(wanted)]

    return BoundIn(place, op.kind.latent, run, count, group, gather)


def bind_out(
    place: Place,
    groups: Groups,
    backend: Backend,
    count: Count,
    peers: Peers | None = None,
    composed: ComposedSum | None = None,
) -> BoundOut:
    """Bind an op of an `_out` boundary; `peers` or `composed` perform it where its impl is ours."""
    op, p = place.op, groups.parallelism
    destination = place.after.hidden
    partial: Layout = REPLICATED if place.boundary == "mlp_out" else p.attention_layout
    residual_from = place.before.residual if place.before else destination
    if sum_group(place.boundary, place.shape, p) is None:
        return BoundOut(place, as_it_is, None, slicer(groups, residual_from, destination), count)
    fold = _folder(groups, residual_from, partial) if op.residual == "fold" else None
    if op.residual == "gather":
        residual = _residual_gather(groups, backend, residual_from, destination)
    else:
        residual = slicer(groups, residual_from, destination)
    if composed is not None:
        normed = composed_norm(composed) if fuses_norm(op.impl) else None
        return BoundOut(place, composed_sum(place, groups, composed, partial), fold, residual, count, normed)
    if peers is None:
        return BoundOut(place, library_sum(place, groups, backend, partial), fold, residual, count)
    norm = peer_norm(place, groups, peers, partial) if fuses_norm(op.impl) else None
    push = pusher(place, peers) if op.is_pushed else None
    ahead = None if norm is None else peers.read_ahead
    return BoundOut(place, peer_sum(place, groups, peers, partial), fold, residual, count, norm, push, ahead)


def _library_gather(backend: Backend, group: Group) -> Gather:
    return lambda x: backend.all_gather(x, group)


# ---- the residual --------------------------------------------------------------------------------------------------


def _folder(groups: Groups, residual: Layout, partial: Layout) -> Callable[[Tensor, Tensor, Sizes], Tensor]:
    """Adds the residual's rows to the partial. Rows that a whole DP group holds are added by its first rank alone."""
    shared = residual == DP_LOCAL and groups.attn_tp.rank != 0

    def fold(x: Tensor, rows: Tensor, sizes: Sizes) -> Tensor:
        return x if shared else add_rows(x, offset(groups, residual, partial, sizes), rows)

    return fold


def _residual_gather(groups: Groups, backend: Backend, source: Layout, destination: Layout) -> Call:
    """By the backend's library, whoever sums: the file names an impl for the sum."""
    inner = groups.attn_tp if destination == DP_LOCAL else groups.tp
    group = groups.attn_dp if source == DP_LOCAL else inner
    return lambda x, sizes: backend.all_gather(x.contiguous(), group)[: sizes.of(destination)]


__all__ = ["BoundIn", "BoundOut", "bind_in", "bind_out"]
