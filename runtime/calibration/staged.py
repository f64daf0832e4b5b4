"""What carries messages through the host's memory, or sums a few rows there, while sums by it are measured.

One that carries for each size of a group, and one that sums for each width and type of rows as well. Made before
anything is timed, for the largest message that any such point sends. What cannot be made on a machine leaves its points
out with the reason, on all ranks together: no plan will have them there.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

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


class _Key(NamedTuple):
    """What one is made for: a size of a group, and where it sums in one launch the width and type of its rows."""

    group_size: int
    width: int = 0
    dtype: str = ""


class HostCarriers:
    """Those that could be made here."""

    def __init__(self, points: list[Point], groups: dict[int, Group], device: torch.device, exchange: Exchange) -> None:
        self._made: dict[_Key, Any] = {}
        self.left_out: dict[str, int] = {}
        """Points that cannot be measured here, by reason."""
        staged = [point for point in points if is_staged(point)]
        for key in sorted({_key(point) for point in staged}):
            of_it = [point for point in staged if _key(point) == key]
            made, reason = _try(groups.get(key.group_size), device, key, of_it)
            if reasons := list(filter(None, exchange(reason))):  # on any rank: then none has them
                self.left_out[reasons[0]] = self.left_out.get(reasons[0], 0) + len(of_it)
                if made is not None:
                    made.close()
            else:
                self._made[key] = made

    def has(self, point: Point) -> bool:
        """Can this point be measured here?"""
        return _key(point) in self._made

    def of(self, point: Point) -> Any:
        """What carries the messages of a point, or sums them; None where the library carries them."""
        return self._made[_key(point)] if is_staged(point) else None

    def check(self) -> None:
        """Raises BoundaryError if one of them has given up waiting for a rank: its times mean nothing."""
        for made in self._made.values():
            made.check()

    def close(self) -> None:
        """Give the memory back."""
        for made in self._made.values():
            made.close()


def message_bytes(point: Point) -> int:
    """What a rank sends in a call of a point."""
    wire = parse_point(point.name, point.kind).wire
    row_bytes = RowLayout.of(wire, point.width).row_bytes if wire else point.width * DTYPES[point.dtype].itemsize
    return point.rows * row_bytes


def _key(point: Point) -> _Key:
    if is_staged(point) and parse_point(point.name, point.kind).way.in_one_launch:
        return _Key(point.group_size, point.width, point.dtype)
    return _Key(point.group_size)


def _try(group: Group | None, device: torch.device, key: _Key, points: list[Point]) -> tuple[Any, str]:
    """(what carries the messages of some points over a group, or sums them, ""), or (None, why not)."""
    if group is None:
        return None, "this rank is in no group of that size"
    try:  # what makes one is loaded where there is one to make
        if key.width:
            one_shot = import_module("commplan.runtime.collectives.host_one_shot").HostOneShot
            most = max(point.rows for point in points)
            return one_shot.make(group, device, DTYPES[key.dtype], key.width, most), ""
        staging = import_module("commplan.runtime.collectives.host_staging").HostStaging
        return staging.make(group, device, max(map(message_bytes, points))), ""
    except Exception as error:  # whatever a driver, an allocator or the host's shared memory says
        return None, f"host memory: {first_line(error)}"
