"""All-gather: every rank sends its rows to all others.

Bytes a rank receives: (N - 1) * its rows. One program a row: send it, copy it, wait for the others' row, copy that. The
last copy is what a receive buffer costs; it hides behind the link.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .calls import address, begin_call, count_call, slot
from .finish import spoil_row
from .rows import load_row, receive_row, send_row, store_row


@triton.jit(do_not_specialize=["looks"])
def all_gather_kernel(
    x,
    out,
    peers,
    state,
    error,
    width,
    row_bytes,
    slot_bytes,
    half_bytes,
    looks,
    RANK: tl.constexpr,
    WORLD: tl.constexpr,
    PARTS: tl.constexpr,
    FEW: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """x [S, width] of each rank to `out` [WORLD * S, width]. Grid: S."""
    dtype: tl.constexpr = x.dtype.element_ty
    index = tl.program_id(0)
    shard = tl.num_programs(0)
    half, ticket, given_up, waiting = begin_call(state, error, looks, DEPENDENT)
    if given_up:
        for q in tl.static_range(WORLD):
            spoil_row(out, out, q * shard + index, width, width, False, PARTS)
        return
    start = half * half_bytes + index.to(tl.int64) * row_bytes
    mine = load_row(x + index.to(tl.int64) * width, width, PARTS)
    for q in tl.static_range(WORLD):
        if q != RANK:
            there = address(peers, q, slot(start, RANK - (q < RANK), slot_bytes), tl.int16)
            send_row(there, mine, width, PARTS)
    store_row(out + (RANK * shard + index).to(tl.int64) * width, mine, width, PARTS)
    count_call(state, half, ticket, DEPENDENT)
    for q in tl.static_range(WORLD):
        if q != RANK:
            here = address(peers, RANK, slot(start, q - (q > RANK), slot_bytes), tl.int16)
            row = receive_row(here, width, waiting, dtype, PARTS, FEW)
            store_row(out + (q * shard + index).to(tl.int64) * width, row, width, PARTS)
