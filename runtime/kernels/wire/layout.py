"""Where values and scales of a row stand while it travels: one record a row, for every wire format.

    values | scales | nothing, up to a multiple of 16 bytes

A row is cut into groups of columns that share a scale; `token`: the row is one group. Columns beyond the row, which
fill its last group, travel as zeros. Values are two's complement, but FP8's, which are e4m3:

    int8, fp8_e4m3     a byte a column
    int4, int4_spikes  a byte for two columns, the first in its low half
    int6               the low four bits as int4 does; behind those of the whole row, a byte for the high two bits of
                       four columns, the first in its lowest bits

Scales follow in the order of groups: bf16, rounded up, or fp32 where the row is one group. With spikes eight bytes a
group: scale, the two values that are kept (bf16), and their columns in the group (a byte each). Kept values are zero
among the others.

What is defined of rows that are not ordinary: a group that holds NaN or an infinity comes out as NaN, all of it. One
without a value of 2**-100 or more comes out as zeros, but for its spikes. Values beyond 2**126 may come out infinite.

Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from commplan.planner.strategy.wire import Wire
from commplan.planner.strategy.words import ScaleGroup

RECORD_MULTIPLE = 16
"""Bytes: records are read and written in the widest words there are."""
_LARGEST = {"int8": 127.0, "int6": 31.0, "int4": 7.0, "int4_spikes": 7.0, "fp8_e4m3": 448.0}


@dataclass(frozen=True)
class RowLayout:
    """The record of a row of `width` columns.

    wire     the name of its format
    group    columns of a scale, or `token`
    bits     of a value
    """

    width: int
    wire: str
    group: ScaleGroup
    bits: int

    @staticmethod
    def of(wire: Wire, width: int) -> RowLayout:
        """The record of rows in a format."""
        columns = wire.scales.columns
        return RowLayout(width, wire.name, "token" if columns is None else str(columns), wire.bits)  # type: ignore[arg-type]

    @cached_property
    def columns(self) -> int:
        """Of a group; of one that is a whole row, rounded up so that scales behind any plane are aligned."""
        return _up(self.width, 16) if self.is_token else int(self.group)

    @cached_property
    def groups(self) -> int:
        """Of a row."""
        return -(-self.width // self.columns)

    @cached_property
    def padded(self) -> int:
        """Columns of all groups."""
        return self.groups * self.columns

    @cached_property
    def scales_at(self) -> int:
        """Bytes in front of the scales."""
        return self.padded * self.bits // 8

    @cached_property
    def group_bytes(self) -> int:
        """What travels of a group beside its values."""
        if self.is_token:
            return 4
        return 8 if self.keeps_spikes else 2

    @property
    def is_token(self) -> bool:
        """Is the row one group?"""
        return self.group == "token"

    @property
    def keeps_spikes(self) -> bool:
        """Do the two largest values of a group travel as they are?"""
        return self.wire == "int4_spikes"

    @cached_property
    def row_bytes(self) -> int:
        """Of a record."""
        return _up(self.scales_at + self.groups * self.group_bytes, RECORD_MULTIPLE)

    # ---- as kernels hold it -----------------------------------------------------------------------------------------

    @cached_property
    def tile_groups(self) -> int:
        """Of a row as a tile, whose sides are powers of two."""
        return 1 << (self.groups - 1).bit_length()

    @cached_property
    def tile_columns(self) -> int:
        """The same of a group."""
        return 1 << (self.columns - 1).bit_length()

    @property
    def largest(self) -> float:
        """What the largest value of a group becomes."""
        return _LARGEST[self.wire]

    @property
    def columns_of_byte(self) -> int:
        """How many columns a byte of the first plane holds."""
        return 1 if self.bits == 8 else 2


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


__all__ = ["RECORD_MULTIPLE", "RowLayout"]
