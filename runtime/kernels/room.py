"""How large a workspace is: bytes of a row on its way, and rows of the op that takes most."""

from __future__ import annotations

from .peer_impls import Room

SCALE_BYTES = 16  # a row in INT8 is followed by its scale, and padded to the next 16 bytes
# Up to this many bytes one_shot's bytes cost less than two_shot's second way over the link: 2 us at 300 GB/s. Two ranks
# receive the same bytes by either. More than two were not measured.
_ONE_SHOT_BYTES = {2: 1 << 62, 3: 1 << 20, 4: 1 << 19}
_ONE_SHOT_BYTES_ELSE = 1 << 17


def one_shot_bytes(ranks: int) -> int:
    """The largest message that is summed in one shot."""
    return _ONE_SHOT_BYTES.get(ranks, _ONE_SHOT_BYTES_ELSE)


def row_bytes(width: int, quantized: bool) -> int:
    """Bytes of a row on its way."""
    return width + SCALE_BYTES if quantized else 2 * width


def half_bytes(ranks: int, width: int, room: Room) -> tuple[int, int]:
    """Bytes of half a workspace, for rows as they are and for rows in INT8: what the op that takes most receives.

    In two shots every peer sends a shard of partials and one of sums; in one shot, and in a pair, all its rows.
    """
    others, row = ranks - 1, row_bytes(width, False)
    in_one_shot = min(room.rows, one_shot_bytes(ranks) // row)
    plain = others * max(2 * -(-room.rows // ranks), in_one_shot, room.pair_rows, room.one_shot_rows)
    small = others * max(2 * -(-room.int8_rows // ranks), room.int8_gather_rows)
    return plain * row, small * row_bytes(width, True)
