"""The sums of `_out` boundaries by a backend's library: partial rows to summed rows in the destination's layout."""

from __future__ import annotations

from commplan.planner.strategy.file import Layout, Rows, is_finer

from ..backends import Backend
from ..collectives.steps import as_they_are, format_of, quantized
from ..ranks.groups import Groups
from .counts import Place
from .layouts import Call, as_it_is, group_at, in_zeros, slicer


def library_sum(place: Place, groups: Groups, backend: Backend, partial: Layout) -> Call:
    """The op of a place, over the group that its layouts ask for."""
    op, destination = place.op, place.after.hidden
    group = group_at(place, groups)
    before = in_zeros(groups) if is_finer(partial, destination) and op.kind.widens else as_it_is
    cut = slicer(groups, partial, destination) if is_finer(destination, partial) else as_it_is
    if op.wire is not None:
        quantised_sum = quantized(op.way, group, format_of(op.wire.name, backend), backend)
        return lambda x, sizes: cut(quantised_sum(x.contiguous()), sizes)
    call = as_they_are(op, group, groups, backend)
    if op.kind.rows is not Rows.SUMMED:  # comes out in the destination's rows
        return lambda x, sizes: call(x, sizes.shard)
    if not op.way.keeps_rows:  # in those that attention consumes, and padding behind them
        return lambda x, sizes: call(x, sizes.shard)[: sizes.of(destination)]
    return lambda x, sizes: cut(call(before(x, sizes), sizes.shard), sizes)
