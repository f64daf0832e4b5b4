"""What moves rows between layouts without a wire, resolved once at start."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from commplan.planner.strategy.file import DP_LOCAL, REPLICATED, GroupName, Layout, Parallelism, group_of, is_finer

from ..collectives.row_moves import slice_rows
from ..ranks.groups import Group, Groups
from .counts import Place
from .sizes import Sizes, offset

Call = Callable[[Tensor, Sizes], Tensor]


def as_it_is(x: Tensor, sizes: Sizes) -> Tensor:  # noqa: ARG001
    """Nothing to move."""
    return x


def slicer(groups: Groups, source: Layout, destination: Layout) -> Call:
    """This rank's rows of a finer layout."""
    if source == destination or groups.tp.size == 1:
        return as_it_is
    if not is_finer(destination, source):
        return as_it_is  # a fold carries the residual; nothing is left to move
    return lambda x, sizes: slice_rows(x, offset(groups, destination, source, sizes), sizes.of(destination))


def in_zeros(groups: Groups) -> Call:
    """The DP group's rows in a zero buffer of all rows."""

    def place(x: Tensor, sizes: Sizes) -> Tensor:
        everything = x.new_zeros(sizes.total, x.shape[1])
        start = offset(groups, DP_LOCAL, REPLICATED, sizes)
        everything[start : start + sizes.group] = x
        return everything

    return place


def group_at(place: Place, groups: Groups) -> Group:
    """The group over which the op of a place runs; without attention DP there is one alone."""
    return groups.of(group_name_at(place, groups.parallelism))


def group_name_at(place: Place, p: Parallelism) -> GroupName:
    """The same by its name."""
    return "tp" if p.attn_dp == 1 else group_of(place.boundary, place.op, place.before, place.shape, p)
