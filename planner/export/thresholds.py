"""Up to which message a kernel pays, as measured: limits for tables in a server's source.

Only tables count, and only sizes that were measured, never what lies between two: a reviewer measures the same sizes.
Within 3 % two kernels are level, and a limit that stands is not moved for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..cost.collective_tables import CollectiveTables, Found, Measured
from ..descriptions.setup import Setup
from ..strategy.op_kinds import ALL_REDUCE

LEVEL = 0.03
KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Point:
    """One message size: the kernel, and the best of what would take the message otherwise."""

    message_bytes: int
    us: float
    rival_us: float
    rival: str

    @property
    def is_ahead(self) -> bool:
        """The kernel is worth taking."""
        return self.us < self.rival_us * (1 - LEVEL)

    @property
    def is_behind(self) -> bool:
        """The kernel costs time."""
        return self.us > self.rival_us * (1 + LEVEL)


@dataclass(frozen=True)
class Verdict:
    """The largest message that a kernel should take (0: none), beside the limit that stands (None: there is none).

    holes  sizes below the limit at which it is behind: one limit cannot leave them out
    """

    limit: int
    stands: int | None
    reason: str
    holes: tuple[int, ...] = ()

    @property
    def changes(self) -> bool:
        """True where the limit that stands should be another one."""
        return self.limit != (self.stands or 0)


def verdict(points: Sequence[Point], stands: int | None) -> Verdict:
    """What the points say of a limit."""
    ahead = [p for p in points if p.is_ahead]
    below = stands or 0
    top = [p for p in ahead if p.message_bytes > below and not _behind_between(points, below, p.message_bytes)]
    if stands is None or top:
        best = (top or ahead)[-1] if ahead and (top or stands is None) else None
        if best is None:
            return Verdict(0, stands, "ahead at no measured size")
        return Verdict(best.message_bytes, stands, _up_to(points, best), _holes(points, best.message_bytes))
    last = max((p.message_bytes for p in ahead if p.message_bytes <= below), default=0)
    losing = [p for p in points if last < p.message_bytes <= below and p.is_behind]
    if not losing:
        reason = f"ahead up to {size(last)}, behind nowhere below its limit" if last else "ahead and behind nowhere"
        return Verdict(below, stands, reason, _holes(points, below))
    kept = max((p.message_bytes for p in points if p.message_bytes < losing[0].message_bytes), default=0)
    first, end = losing[0], points[-1].message_bytes
    reason = f"{first.us:.1f} us at {size(first.message_bytes)}, where {first.rival} takes {first.rival_us:.1f}"
    if end < below:  # a limit is not cut for what nobody measured
        return Verdict(below, stands, f"{reason}; but measured up to {size(end)} alone", _holes(points, end))
    return Verdict(kept, stands, reason, _holes(points, kept))


def _behind_between(points: Sequence[Point], low: int, high: int) -> bool:
    return any(p.is_behind for p in points if low < p.message_bytes <= high)


def _holes(points: Sequence[Point], limit: int) -> tuple[int, ...]:
    return tuple(p.message_bytes for p in points if p.message_bytes <= limit and p.is_behind)


def _up_to(points: Sequence[Point], best: Point) -> str:
    after = next((p for p in points if p.message_bytes > best.message_bytes), None)
    end = "where the tables end" if after is None else f"no longer at {size(after.message_bytes)}"
    return f"{best.us:.1f} us at {size(best.message_bytes)}, where {best.rival} takes {best.rival_us:.1f}; {end}"


def size(message_bytes: float) -> str:
    """`256 KiB`, `1.5 MiB`."""
    if message_bytes >= MIB:
        return f"{message_bytes / MIB:.4g} MiB"
    return f"{message_bytes / KIB:.4g} KiB" if message_bytes >= KIB else f"{message_bytes:.0f} bytes"


# ---- tables ----------------------------------------------------------------------------------------------------------

Rival = tuple[str, Found, float]
"""Who, by which table, and the largest message that it takes."""


class Tables:
    """The all-reduces that were measured on a machine."""

    def __init__(self, setup: Setup) -> None:
        self._dtype = setup.deployment.dtypes.activations
        self._apart = [CollectiveTables([used]) for used in setup.calibrations]  # in the order in which they count
        self._all = CollectiveTables(setup.calibrations)

    def kernel(self, impl: str, ranks: int, width: int | None = None) -> Found | None:
        """The table of an impl."""
        return self._find(self._all, impl, ranks, width)

    def beside(self, kernel: str, impl: str, ranks: int) -> Found | None:
        """The table of an impl as it was measured together with a kernel, else elsewhere: two runs differ by more than
        two kernels that are level."""
        mine = next((each for each in self._apart if self._find(each, kernel, ranks) is not None), self._all)
        return self._find(mine, impl, ranks) or self._find(self._all, impl, ranks)

    def _find(self, tables: CollectiveTables, impl: str, ranks: int, width: int | None = None) -> Found | None:
        return tables.find(Measured(ALL_REDUCE.name, impl, self._dtype, ranks), width)


def compared(found: Found, rivals: Sequence[Rival], more_us: Callable[[int], float] | None = None) -> list[Point]:
    """A kernel beside the best of its rivals, at every size that its table and one of theirs hold.

    more_us  what a rival takes beside its table: the norm that the kernel has inside
    """
    points = []
    for message in map(int, found.curve.sizes):
        known = [(table.curve.at(message)[0], name) for name, table, limit in rivals if _holds(table, message, limit)]
        if known:
            best, name = min(known)
            extra = more_us(message) if more_us is not None else 0.0
            points.append(Point(message, found.curve.at(message)[0], best + extra, name))
    return points


def _holds(table: Found, message: int, limit: float) -> bool:
    return table.curve.sizes[0] <= message <= min(table.curve.sizes[-1], limit)
