"""The beginning of the next GEMM's weights, asked for while a sum waits for its peers.

A decode reads weights faster than anything else it does, and while few rows cross a link the memory has nothing to do.
So programs beside those of the rows ask the L2 cache for the first bytes of every row of the weights that are read
next: the GEMM then begins with what is there already. A GEMM's blocks all begin at the first columns of their rows, so
that it is the beginning of every row rather than whole rows. Nothing is written, and no result depends on it.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import RefusedError

VARIABLE = "COMMPLAN_READ_AHEAD"
"""Bytes of the next weights that a sum asks for; 0, as long as nobody says otherwise: nothing."""
MOST_ROWS = 64
"""Rows of a sum. A GEMM over more computes for longer than it reads."""
_MOST_BYTES = 1 << 26
_LINE = 128  # bytes of a cache line
_MOST_PROGRAMS = 96


class Ahead(NamedTuple):
    """The first `head_bytes` of each of `rows`, which lie `row_bytes` apart from an address on."""

    address: int
    rows: int
    row_bytes: int
    head_bytes: int

    def programs(self, threads: int) -> int:
        """That ask for it, of so many threads."""
        return min(-(-self.rows // threads), _MOST_PROGRAMS)


NOTHING = Ahead(0, 0, 0, 0)


def bytes_ahead() -> int:
    """As COMMPLAN_READ_AHEAD says; raises RefusedError for what is no number of bytes."""
    said = os.environ.get(VARIABLE, "0")
    if not (said.isascii() and said.isdecimal() and len(said) <= len(str(_MOST_BYTES)) and int(said) <= _MOST_BYTES):
        raise RefusedError(f"a whole number of bytes up to {_MOST_BYTES} is expected", field=VARIABLE, value=said)
    return int(said)


def ahead_of(weight: Tensor, most_bytes: int) -> Ahead | None:
    """What to ask for of a matrix whose rows or columns are contiguous, in no more than so many bytes but for a line of
    each row; None where it does not lie as the instruction wants it, or nothing is wanted."""
    if not most_bytes or weight.dim() != 2 or weight.data_ptr() % 16 or 0 in weight.shape:
        return None
    outer = 0 if weight.stride(1) == 1 else 1
    if weight.stride(1 - outer) != 1:
        return None
    rows, size = weight.shape[outer], weight.element_size()
    row_bytes, long = weight.stride(outer) * size, weight.shape[1 - outer] * size
    head = min(max(most_bytes // rows // _LINE * _LINE, _LINE), long // 16 * 16)
    if row_bytes % 16 or not head:
        return None
    return Ahead(weight.data_ptr(), rows, row_bytes, head)


def can_ask(device: torch.device) -> bool:
    """Does this GPU have the instruction?"""
    return device.type == "cuda" and not torch.version.hip and torch.cuda.get_device_capability(device) >= (9, 0)


__all__ = ["MOST_ROWS", "NOTHING", "VARIABLE", "Ahead", "ahead_of", "bytes_ahead", "can_ask"]
