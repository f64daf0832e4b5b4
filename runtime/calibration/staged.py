"""What carries messages through the host's memory while sums by it are measured: one for each size of a group.

Made before anything is timed, for the largest message that any point of that size sends. What cannot be made on a
machine leaves its points out with the reason, on all ranks together: no plan will have them there.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch

from commplan.planner.strategy.composed_points import parse_point

from ..kernels.peer_impls import STAGED_IMPLS
from ..kernels.wire.layout import RowLayout
from ..ranks.agreement import Exchange, first_line
from ..ranks.groups import Group
from .point_calls import DTYPES, Point


def is_staged(point: Point) -> bool:
    """Does the message of this point go through the host's memory?"""
    return point.kind in STAGED_IMPLS


class HostCarriers:
    """Those that could be made here."""

    def __init__(self, points: list[Point], groups: dict[int, Group], device: torch.device, exchange: Exchange) -> None:
        self._made: dict[int, Any] = {}
        self.left_out: dict[str, int] = {}
        """Points that cannot be measured here, by reason."""
        staged = [point for point in points if is_staged(point)]
        for size in sorted({point.group_size for point in staged}):
            sent = [message_bytes(point) for point in staged if point.group_size == size]
            made, reason = _try(groups.get(size), device, max(sent))
            if reasons := list(filter(None, exchange(reason))):  # on any rank: then none has them
                self.left_out[reasons[0]] = self.left_out.get(reasons[0], 0) + len(sent)
                if made is not None:
                    made.close()
            else:
                self._made[size] = made

    def has(self, point: Point) -> bool:
        """Can this point be measured here?"""
        return point.group_size in self._made

    def of(self, point: Point) -> Any:
        """What carries the messages of a point; None where the library does."""
        return self._made[point.group_size] if is_staged(point) else None

    def close(self) -> None:
        """Give the memory back."""
        for made in self._made.values():
            made.close()


def message_bytes(point: Point) -> int:
    """What a rank sends in a call of a point."""
    wire = parse_point(point.name, point.kind).wire
    row_bytes = RowLayout.of(wire, point.width).row_bytes if wire else point.width * DTYPES[point.dtype].itemsize
    return point.rows * row_bytes


def _try(group: Group | None, device: torch.device, rows_bytes: int) -> tuple[Any, str]:
    """(what carries messages of so many bytes over a group, ""), or (None, why not)."""
    if group is None:
        return None, "this rank is in no group of that size"
    try:
        staging = import_module("commplan.runtime.collectives.host_staging")  # loaded where there is one to make
        return staging.HostStaging.make(group, device, rows_bytes), ""
    except Exception as error:  # whatever a driver, an allocator or the host's shared memory says
        return None, f"host memory: {first_line(error)}"
