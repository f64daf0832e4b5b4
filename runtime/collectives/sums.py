"""The sums of `_out` boundaries by a backend's library: partial rows to summed rows in the destination's layout."""

from __future__ import annotations

from torch import Tensor

from commplan.planner.strategy_file import Layout, is_finer

from ..backends import Backend
from ..counters import Place
from ..errors import RefusedError
from ..groups import Groups
from ..sizes import Sizes
from . import int8
from .layouts import Rows, as_it_is, group_at, in_zeros, slicer
from .rows import pad_rows


def library_sum(place: Place, groups: Groups, backend: Backend, partial: Layout) -> Rows:
    """The op of a place, over the group that its layouts ask for."""
    op, destination = place.op, place.after.hidden
    if op.kind.spans_two:
        return _pair(op.name, groups, backend)
    group = group_at(place, groups)
    if op.name == "reduce_scatter":
        return lambda x, sizes: backend.reduce_scatter(pad_rows(x, sizes.shard * group.size).contiguous(), group)
    if op.name == "reduce_scatter_all_gather":
        back = groups.attn_tp

        def two_steps(x: Tensor, sizes: Sizes) -> Tensor:
            shard = backend.reduce_scatter(pad_rows(x, sizes.shard * group.size).contiguous(), group)
            return backend.all_gather(shard, back)[: sizes.of(destination)] if back.size > 1 else shard

        return two_steps
    cut = slicer(groups, partial, destination) if is_finer(destination, partial) else as_it_is
    if op.name == "int8_all_reduce":
        algorithm = int8.ALGORITHMS[op.algorithm or "gather"]
        return lambda x, sizes: cut(algorithm(x.contiguous(), group, backend), sizes)
    if op.name == "all_reduce" and is_finer(partial, destination):
        placed = in_zeros(groups)
        return lambda x, sizes: backend.all_reduce(placed(x, sizes), groups.tp)
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
