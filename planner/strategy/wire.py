"""What a wire format is made of, and what a sum in it is expected to lose. The formats stand in wire_formats.py."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from .words import ScaleGroup

Part = Literal["activations", "values", "scales"]
"""What travels: rows as they are, or quantised values and their scales."""


@dataclass(frozen=True, slots=True)
class Scales:
    """What turns quantised values back: one scale for a row, or for every `columns` of one."""

    bytes_each: int = 4
    dtype: str = "fp32"
    columns: int | None = None

    def per_row(self, width: int) -> int:
        """Scales of a row."""
        return 1 if self.columns is None else -(-width // self.columns)


@dataclass(frozen=True, slots=True)
class Wire:
    """A wire format: what a quantised row is while it travels.

    name     as executor files and the runtime spell it
    words    as reports say it
    carrier  the type by which libraries carry the values, and tables know them
    scales   of a row
    group_bytes  what travels beside the values of a group of columns, where a scale is of a group: the scale, and
             values that are kept as they are with their places
    needs_fp8    devices convert to it by arithmetic that not all have
    """

    name: str
    words: str
    bits: int
    carrier: str
    scales: Scales = Scales()
    group_bytes: int | None = None
    needs_fp8: bool = False

    @property
    def value_bytes(self) -> float:
        """Bytes of one value."""
        return self.bits / 8 if self.bits % 8 else self.bits // 8

    def grouped(self, group: ScaleGroup) -> Wire:
        """The format with a scale for so many columns; one for a whole row stays as it is."""
        if group == "token":
            return self
        each = self.group_bytes or self.scales.bytes_each
        return replace(self, scales=replace(self.scales, bytes_each=each, columns=int(group)))

    def row_bytes(self, width: int) -> float:
        """Bytes of a row, scales included."""
        return sum(self.parts(width).values())

    def parts(self, width: int) -> dict[Part, float]:
        """Bytes of a row by what travels."""
        return {"values": width * self.value_bytes, "scales": self.scales.per_row(width) * self.scales.bytes_each}


@dataclass(frozen=True, slots=True)
class Error:
    """Expected relative RMS error of one sum, ||quantised - exact|| / ||exact||, by ranks; and who measured it.

    That is of normal rows. Where some column is larger than the others, the error of all columns that do not share its
    group is a law of how much: `slope` is by how much it grows with (largest value / RMS of the others). Beside a scale
    for a group of columns, and in FP8, which has exponents, it does not grow.
    """

    by_ranks: Mapping[int, float]
    source: str
    slope: float = 0.0

    def at(self, ranks: int, largest: float | None = None) -> float:
        """The error over so many ranks; sizes between measured ones take the larger one's.

        `largest`: the largest value of a row over the RMS of the others; None: rows are normal.
        """
        if ranks == 1:
            return 0.0
        sizes = sorted(self.by_ranks)
        normal = self.by_ranks[sizes[min(bisect_left(sizes, ranks), len(sizes) - 1)]]
        if largest is None or largest <= NORMAL_LARGEST:
            return normal
        grown = self.slope**2 * (largest**2 - NORMAL_LARGEST**2)
        return math.sqrt((normal**2 + grown) / (1.0 + grown))  # where everything but the largest is lost it is 1


NORMAL_LARGEST = 3.85
"""The largest of 5120 normal values over their RMS, on which errors of normal rows were measured."""


def over_the_others(ratio: float, width: int) -> float:
    """The largest value of a row over the RMS of the others, from that over the RMS of the whole row."""
    rest = max(1.0 - ratio * ratio / width, 1.0 / width)
    return ratio / math.sqrt(rest)
