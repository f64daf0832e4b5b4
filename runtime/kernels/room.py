"""How large a workspace is: bytes of a row on its way, and rows of the op that takes most."""

from __future__ import annotations

from commplan.planner.strategy.wire_formats import WIRES
from commplan.planner.strategy.words import ScaleGroup

from .peer_impls import KERNEL_GROUPS, KERNEL_WIRES, Room
from .wire.layout import RowLayout

SCALE_BYTES = 16  # a row in INT8 is followed by its scale, and padded to the next 16 bytes
# Up to this many bytes one_shot's bytes cost less than two_shot's second way over the link: 2 us at 300 GB/s. Two ranks
# receive the same bytes by either. More than two were not measured.
_ONE_SHOT_BYTES = {2: 1 << 62, 3: 1 << 20, 4: 1 << 19}
_ONE_SHOT_BYTES_ELSE = 1 << 17
FLAGS = 32
"""Of 4 bytes each, which say that blocks of pushed rows are there."""


def one_shot_bytes(ranks: int) -> int:
    """The largest message that is summed in one shot."""
    return _ONE_SHOT_BYTES.get(ranks, _ONE_SHOT_BYTES_ELSE)


def layout_of(width: int, wire: str, group: ScaleGroup) -> RowLayout:
    """The record of a row of this width in a format."""
    return RowLayout.of(WIRES[wire].grouped(group), width)


def row_bytes(width: int, layout: RowLayout | None) -> int:
    """Bytes of a row on its way, a multiple of 16; without a record it travels as it is."""
    if layout is None:
        return 2 * width
    return width + SCALE_BYTES if layout.is_token else layout.row_bytes


def half_bytes(ranks: int, width: int, room: Room) -> tuple[int, int]:
    """Bytes of half a workspace, for rows as they are and for quantised ones: what the op that takes most receives.

    In two shots every peer sends a shard of partials and one of sums; in one shot all its rows. So in a pair, which by
    two shots takes no more than that and a row of each. A quantised row has the room of the longest format, since an op
    in another takes its turn in the same memory.
    """
    others, row = ranks - 1, row_bytes(width, None)
    in_one_shot = min(room.rows, one_shot_bytes(ranks) // row)
    in_pair = room.pair_rows + 1 if room.pair_rows else 0
    plain = others * max(2 * -(-room.rows // ranks), in_one_shot, in_pair, room.one_shot_rows)
    small = others * max(2 * -(-room.int8_rows // ranks), room.int8_gather_rows)
    formats = [("int8", "token"), *((wire, group) for wire in KERNEL_WIRES for group in KERNEL_GROUPS)]
    longest = max(row_bytes(width, layout_of(width, *each)) for each in formats)
    return plain * row, small * longest


def pushed_bytes(ranks: int, width: int, rows: int) -> int:
    """Half of a workspace: rows from every peer, and half of the flags and words that lie behind both."""
    return (ranks - 1) * rows * width * 2 + ranks * FLAGS * 4
