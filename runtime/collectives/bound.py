"""An op bound to a boundary: layouts, groups and backend resolved once at start, so that a forward only calls.

At an `_out` boundary an op takes this rank's partial rows and the residual, and returns the summed rows and the
residual in the destination's layout (None where the sum carries it: a fold). At an `_in` boundary it takes normed rows
and returns the rows that the block consumes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from commplan.planner.strategy_file import (
    DP_LOCAL,
    REPLICATED,
    Layout,
    group_of,
    is_finer,
    sum_group,
)

from ..backends import Backend
from ..counters import Count, Place
from ..errors import RefusedError
from ..groups import Group, Groups
from ..sizes import Sizes, offset
from . import int8
from .rows import add_rows, pad_rows, slice_rows

Rows = Callable[[Tensor, Sizes], Tensor]


@dataclass(frozen=True, slots=True)
class BoundIn:
    """An op at attn_in, mlp_in or head_in."""

    place: Place
    latent: bool
    run: Rows
    count: Count
    group: Group | None = None  # of a gather


@dataclass(frozen=True, slots=True)
class BoundOut:
    """An op at embed_out, attn_out or mlp_out: `sum` for the partial, `residual` for the other stream."""

    place: Place
    sum: Rows
    fold: Callable[[Tensor, Tensor, Sizes], Tensor] | None
    residual: Rows
    count: Count


def bind_in(place: Place, groups: Groups, backend: Backend, count: Count) -> BoundIn:
    """Bind an op of an `_in` boundary."""
    op, p = place.op, groups.parallelism
    assert place.before is not None
    source, wanted = place.before.hidden, place.after.hidden
    if op.name in ("none", "fused"):
        return BoundIn(place, False, _as_it_is, count)
    if op.name == "slice":
        return BoundIn(place, False, _slicer(groups, source, wanted), count)
    group = groups.of(_group_name(group_of(place.boundary, op, place.before, place.shape, p), groups))

    def gather(x: Tensor, sizes: Sizes) -> Tensor:
        return backend.all_gather(x.contiguous(), group)[: sizes.of(wanted)]

    return BoundIn(place, op.name == "latent_all_gather", gather, count, group)


def bind_out(place: Place, groups: Groups, backend: Backend, count: Count) -> BoundOut:
    """Bind an op of an `_out` boundary."""
    op, p = place.op, groups.parallelism
    destination = place.after.hidden
    partial: Layout = REPLICATED if place.boundary == "mlp_out" else p.attention_layout
    residual_from = place.before.residual if place.before else destination
    if sum_group(place.boundary, place.shape, p) is None:
        return BoundOut(place, _as_it_is, None, _slicer(groups, residual_from, destination), count)
    run = _sum(place, groups, backend, partial, destination)
    fold = _folder(groups, residual_from, partial) if op.residual == "fold" else None
    if op.residual == "gather":
        residual = _residual_gather(groups, backend, residual_from, destination)
    else:
        residual = _slicer(groups, residual_from, destination)
    return BoundOut(place, run, fold, residual, count)


# ---- sums ----------------------------------------------------------------------------------------------------------


def _sum(place: Place, groups: Groups, backend: Backend, partial: Layout, destination: Layout) -> Rows:
    op, p = place.op, groups.parallelism
    if op.kind.spans_two:
        return _pair(op.name, groups, backend)
    name = group_of(place.boundary, op, place.before, place.shape, p)
    group = groups.of(_group_name(name, groups))
    if op.name == "reduce_scatter":
        return lambda x, sizes: backend.reduce_scatter(pad_rows(x, sizes.shard * group.size).contiguous(), group)
    if op.name == "reduce_scatter_all_gather":
        back = groups.attn_tp

        def two_steps(x: Tensor, sizes: Sizes) -> Tensor:
            shard = backend.reduce_scatter(pad_rows(x, sizes.shard * group.size).contiguous(), group)
            return backend.all_gather(shard, back)[: sizes.of(destination)] if back.size > 1 else shard

        return two_steps
    cut = _slicer(groups, partial, destination) if is_finer(destination, partial) else _as_it_is
    if op.name == "int8_all_reduce":
        algorithm = int8.ALGORITHMS[op.algorithm or "gather"]
        return lambda x, sizes: cut(algorithm(x.contiguous(), group, backend), sizes)
    if op.name == "all_reduce" and is_finer(partial, destination):
        return _zero_buffer(groups, backend)
    if op.name == "all_reduce":
        return lambda x, sizes: cut(backend.all_reduce(x.contiguous(), group), sizes)
    raise RefusedError(f"this runtime has no {op.name}", field=str(place))


def _pair(name: str, groups: Groups, backend: Backend) -> Rows:
    """MixedComm's pairs, composed of two collectives."""

    def reduce_then_gather(x: Tensor, sizes: Sizes) -> Tensor:  # noqa: ARG001
        return backend.all_gather(backend.all_reduce(x.contiguous(), groups.attn_tp), groups.attn_dp)

    def scatter_then_reduce(x: Tensor, sizes: Sizes) -> Tensor:  # noqa: ARG001
        return backend.all_reduce(backend.reduce_scatter(x.contiguous(), groups.attn_dp), groups.attn_tp)

    return reduce_then_gather if name == "all_reduce_all_gather" else scatter_then_reduce


def _zero_buffer(groups: Groups, backend: Backend) -> Rows:
    """The DP group's rows in a zero buffer of all rows, summed over tp."""

    def place_and_sum(x: Tensor, sizes: Sizes) -> Tensor:
        everything = x.new_zeros(sizes.total, x.shape[1])
        start = offset(groups, DP_LOCAL, REPLICATED, sizes)
        everything[start : start + sizes.group] = x
        return backend.all_reduce(everything, groups.tp)

    return place_and_sum


# ---- the residual --------------------------------------------------------------------------------------------------


def _folder(groups: Groups, residual: Layout, partial: Layout) -> Callable[[Tensor, Tensor, Sizes], Tensor] | None:
    """Adds the residual's rows to the partial. Rows that a whole DP group holds are added by its first rank alone."""
    shared = residual == DP_LOCAL and groups.attn_tp.rank != 0

    def fold(x: Tensor, rows: Tensor, sizes: Sizes) -> Tensor:
        return x if shared else add_rows(x, offset(groups, residual, partial, sizes), rows)

    return fold


def _residual_gather(groups: Groups, backend: Backend, source: Layout, destination: Layout) -> Rows:
    inner = groups.attn_tp if destination == DP_LOCAL else groups.tp
    group = groups.attn_dp if source == DP_LOCAL else inner
    return lambda x, sizes: backend.all_gather(x.contiguous(), group)[: sizes.of(destination)]


# ---- layouts -------------------------------------------------------------------------------------------------------


def _as_it_is(x: Tensor, sizes: Sizes) -> Tensor:  # noqa: ARG001
    return x


def _slicer(groups: Groups, source: Layout, destination: Layout) -> Rows:
    if source == destination or groups.tp.size == 1:
        return _as_it_is
    if not is_finer(destination, source):
        return _as_it_is  # a fold carries the residual; nothing is left to move
    return lambda x, sizes: slice_rows(x, offset(groups, destination, source, sizes), sizes.of(destination))


def _group_name(name: str, groups: Groups) -> str:
    return "tp" if groups.parallelism.attn_dp == 1 else name


__all__ = ["BoundIn", "BoundOut", "bind_in", "bind_out"]
