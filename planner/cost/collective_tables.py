"""The measured tables of a setup's calibrations, found by what they measure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ..descriptions.calibration import Table
from ..descriptions.setup import UsedCalibration
from ..strategy.words import Provenance, ScaleGroup
from .links import Placement
from .tables import Curve

# Bytes travel alike whatever they mean: where a data type has no table of its own, one of these stands in. A float type
# of an earlier calibration does so before the type itself of a later one: benchmarks measure one type, fp32 by default.
_STANDS_IN = {
    "bf16": ("bf16", "fp16", "fp32"),
    "fp16": ("fp16", "bf16", "fp32"),
    "fp32": ("fp32", "bf16", "fp16"),
    "int8": ("int8", "bf16", "fp16"),
}


class Measured(NamedTuple):
    """What a table measures; `attn_dp`, `algorithm`, its format and pieces where an op has them."""

    op: str
    impl: str
    dtype: str
    group_size: int
    algorithm: str | None = None
    attn_dp: int | None = None
    wire: str | None = None
    scale_group: ScaleGroup | None = None
    pieces: int = 1


class Found(NamedTuple):
    """A smoothed table, where it comes from, and the elements per row it was measured at (None: any).

    is_given  with the link that this machine was given, so it is not scaled to that link
    """

    curve: Curve
    provenance: Provenance
    source: str
    width: int | None
    is_given: bool = False


class Near(NamedTuple):
    """A table of another collective, or of other ranks."""

    op: str
    where: Placement
    found: Found


class Source(NamedTuple):
    """Where the time of a collective over a group comes from: its table, those of its halves, else a formula.

    received  bytes that a rank receives for each of the whole buffer
    near      a table that puts a formula right
    """

    where: Placement
    received: float
    found: Found | None
    halves: tuple[str, ...]
    near: Near | None


class _Known(NamedTuple):
    rank: int  # of its calibration
    table: Table
    provenance: Provenance
    source: str
    scale: float
    is_given: bool


class CollectiveTables:
    """Tables by what they measure, then by width. An earlier calibration wins: one of this machine comes first."""

    def __init__(self, calibrations: Iterable[UsedCalibration]) -> None:
        self._tables: dict[Measured, dict[int | None, _Known]] = {}
        self._sizes: dict[Measured, set[int]] = {}
        self._found: dict[tuple[Measured, int | None], Found | None] = {}  # smoothed when first asked for
        for rank, used in enumerate(calibrations):
            c = used.calibration
            provenance: Provenance = c.provenance
            source = c.source
            if used.transferred_because:
                provenance = "table (transferred)"
                source = f"{c.machine} table: {used.transferred_because} ({c.source})"
            for t in c.tables:
                format_ = (t.algorithm, t.attn_dp, t.wire, t.scale_group, t.pieces or 1)
                key = Measured(t.op, t.impl, t.dtype, t.group_size, *format_)
                known = _Known(rank, t, provenance, source, used.scale, used.is_given)
                self._tables.setdefault(key, {}).setdefault(t.width, known)
                self._sizes.setdefault(key._replace(group_size=0), set()).add(t.group_size)
        self.impls = frozenset(key.impl for key in self._tables)
        self.algorithms = frozenset((key.op, key.impl, key.algorithm) for key in self._tables)

    def find(self, wanted: Measured, width: int | None = None) -> Found | None:
        """The table of this width, else one of any width, else that of the nearest width; None without any."""
        key = (wanted, width)
        if key not in self._found:
            self._found[key] = self._look_up(wanted, width)
        return self._found[key]

    def _look_up(self, wanted: Measured, width: int | None) -> Found | None:
        found = [
            (self._nearest(by_width, width), by_width)
            for stand_in in _STANDS_IN[wanted.dtype]
            if (by_width := self._tables.get(wanted._replace(dtype=stand_in)))
        ]
        if not found:
            return None
        # Integers are summed by other kernels: their own tables come first, whoever measured them.
        nearest, by_width = found[0] if wanted.dtype == "int8" else min(found, key=lambda each: each[1][each[0]].rank)
        _, table, provenance, source, scale, is_given = by_width[nearest]
        if width is not None and nearest not in (None, width):
            source += f", rows of {nearest} elements instead of {width}"
        sizes = [size * scale for size in table.message_bytes]
        return Found(Curve.of(sizes, table.latency_us), provenance, source, nearest, is_given)

    @staticmethod
    def _nearest(by_width: dict[int | None, _Known], width: int | None) -> int | None:
        if width in by_width:
            return width
        if None in by_width:
            return None
        known = [w for w in by_width if w is not None]
        return min(known, key=lambda w: (abs(math.log(w / (width or w))), w))

    def ways_of(self, wanted: Measured) -> frozenset[tuple[str | None, int]]:
        """The algorithms and numbers of pieces by which there are tables of what is otherwise the same."""
        return frozenset((k.algorithm, k.pieces) for k in self._alike(wanted, pieces=1, algorithm=None))

    def in_other_formats(self, wanted: Measured) -> frozenset[Measured]:
        """What there are tables of that differs by its format, so by its op too, or in its number of pieces."""
        alike = self._alike(wanted, op="", wire=None, scale_group=None, pieces=1)
        return frozenset(k._replace(dtype=wanted.dtype) for k in alike)

    def _alike(self, wanted: Measured, **any_of: Any) -> Iterator[Measured]:
        """What there are tables of that is the same but for its type, which stands in, and some fields."""
        sought = wanted._replace(**any_of)
        for key in self._tables:
            if key.dtype in _STANDS_IN[wanted.dtype] and key._replace(dtype=wanted.dtype, **any_of) == sought:
                yield key

    def nearest_size(self, wanted: Measured) -> int | None:
        """The number of ranks next to the wanted one for which there is a table."""
        for stand_in in _STANDS_IN[wanted.dtype]:
            sizes = self._sizes.get(wanted._replace(dtype=stand_in, group_size=0))
            if sizes:
                return min(sizes, key=lambda size: (abs(math.log(size / wanted.group_size)), size))
        return None
