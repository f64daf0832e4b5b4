"""MixedComm's pairs in two shots: a rank sums a shard of its DP group's rows, and sends the sums on.

gather_sum    each rank of a DP group sums G / A of its rows, and sends the sums to all N ranks.
scatter_sum   each rank sums G / A rows of its DP group from all N ranks, and sends the sums to its A - 1 neighbours.

Bytes a rank receives by either: (N + A - 2) / A of the group's rows, where one shot brings N - 1; a second way over the
link. Sums are made in the order of ranks and rounded by their owner: the bits of one shot. Rank = dp_rank * A +
attn_tp_rank. What every rank sends to every other (the sums of the one, the partials of the other) is sent beyond the
rows too, as zeros: two_shot.py says why.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .calls import address, begin_call, count_call, slot
from .finish import spoil_row
from .messages import sum_of_ranks
from .rows import add_rows, load_row, narrow_row, receive_row, send_row, store_row, wide_row


@triton.jit(do_not_specialize=["rows", "looks"])
def gather_sum_in_two_kernel(
    x,
    out,
    peers,
    state,
    error,
    rows,
    width,
    row_bytes,
    slot_bytes,
    half_bytes,
    looks,
    RANK: tl.constexpr,
    WORLD: tl.constexpr,
    ATTN_TP: tl.constexpr,
    PARTS: tl.constexpr,
    FEW: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """x [G, width], partial over the DP group, to `out` [WORLD / ATTN_TP * G, width]. Grid: ceil(G / ATTN_TP).

    G is `rows`.
    A half of the workspace has ATTN_TP - 1 slots for partials, then WORLD - 1 for sums.
    """
    dtype: tl.constexpr = x.dtype.element_ty
    FIRST: tl.constexpr = RANK // ATTN_TP * ATTN_TP
    index = tl.program_id(0)
    shard = tl.num_programs(0)
    half, ticket, given_up, waiting = begin_call(state, error, looks, DEPENDENT)
    if given_up:
        for q in tl.static_range(WORLD):
            row = q % ATTN_TP * shard + index
            spoil_row(out, out, q // ATTN_TP * rows + row, width, tl.where(row < rows, width, 0), False, PARTS)
        return
    start = half * half_bytes + index.to(tl.int64) * row_bytes
    for q in tl.static_range(FIRST, FIRST + ATTN_TP):  # partials to their owners
        if q != RANK:
            row = (q - FIRST) * shard + index
            partial = load_row(x + row.to(tl.int64) * width, tl.where(row < rows, width, 0), PARTS)
            there = slot(start, RANK - FIRST - (q < RANK), slot_bytes)
            send_row(address(peers, q, there, tl.int16), partial, width, PARTS)
    row = (RANK - FIRST) * shard + index
    limit = tl.where(row < rows, width, 0)
    mine = load_row(x + row.to(tl.int64) * width, limit, PARTS)
    count_call(state, half, ticket, DEPENDENT)
    for q in tl.static_range(FIRST, FIRST + ATTN_TP):
        if q == RANK:
            one = wide_row(mine, PARTS)
        else:
            here = address(peers, RANK, slot(start, q - FIRST - (q > RANK), slot_bytes), tl.int16)
            one = receive_row(here, width, waiting, dtype, PARTS, FEW)
        if q == FIRST:
            summed = one
        else:
            summed = add_rows(summed, one, PARTS)
    message = narrow_row(summed, dtype, PARTS)
    for q in tl.static_range(WORLD):
        if q != RANK:
            there = slot(start, ATTN_TP - 1 + RANK - (q < RANK), slot_bytes)
            send_row(address(peers, q, there, tl.int16), message, width, PARTS)
    store_row(out + (RANK // ATTN_TP * rows + row).to(tl.int64) * width, summed, limit, PARTS)
    for q in tl.static_range(WORLD):  # the others' sums
        if q != RANK:
            row = q % ATTN_TP * shard + index
            here = address(peers, RANK, slot(start, ATTN_TP - 1 + q - (q > RANK), slot_bytes), tl.int16)
            summed = receive_row(here, width, waiting, dtype, PARTS, FEW)
            place = out + (q // ATTN_TP * rows + row).to(tl.int64) * width
            store_row(place, summed, tl.where(row < rows, width, 0), PARTS)


@triton.jit(do_not_specialize=["rows", "looks"])
def scatter_sum_in_two_kernel(
    x,
    out,
    peers,
    state,
    error,
    rows,
    width,
    row_bytes,
    slot_bytes,
    half_bytes,
    looks,
    RANK: tl.constexpr,
    WORLD: tl.constexpr,
    ATTN_TP: tl.constexpr,
    PARTS: tl.constexpr,
    FEW: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """x [WORLD / ATTN_TP * G, width], partial over all ranks, to the rows [G, width] of this DP group.

    Grid: ceil(G / ATTN_TP); G is `rows`.
    A half of the workspace has WORLD - 1 slots for partials, then ATTN_TP - 1 for sums.
    """
    dtype: tl.constexpr = x.dtype.element_ty
    FIRST: tl.constexpr = RANK // ATTN_TP * ATTN_TP
    index = tl.program_id(0)
    shard = tl.num_programs(0)
    half, ticket, given_up, waiting = begin_call(state, error, looks, DEPENDENT)
    if given_up:
        for q in tl.static_range(ATTN_TP):
            row = q * shard + index
            spoil_row(out, out, row, width, tl.where(row < rows, width, 0), False, PARTS)
        return
    start = half * half_bytes + index.to(tl.int64) * row_bytes
    for q in tl.static_range(WORLD):  # partials to their owners
        if q != RANK:
            row = q % ATTN_TP * shard + index
            place = x + (q // ATTN_TP * rows + row).to(tl.int64) * width
            partial = load_row(place, tl.where(row < rows, width, 0), PARTS)
            there = address(peers, q, slot(start, RANK - (q < RANK), slot_bytes), tl.int16)
            send_row(there, partial, width, PARTS)
    row = (RANK - FIRST) * shard + index
    limit = tl.where(row < rows, width, 0)
    mine = load_row(x + (RANK // ATTN_TP * rows + row).to(tl.int64) * width, limit, PARTS)
    count_call(state, half, ticket, DEPENDENT)
    own = wide_row(mine, PARTS)
    summed = sum_of_ranks(own, peers, start, slot_bytes, width, width, waiting, dtype, RANK, WORLD, None, PARTS, FEW, 0)
    message = narrow_row(summed, dtype, PARTS)
    for q in tl.static_range(FIRST, FIRST + ATTN_TP):
        if q != RANK:
            there = slot(start, WORLD - 1 + RANK - FIRST - (q < RANK), slot_bytes)
            send_row(address(peers, q, there, tl.int16), message, limit, PARTS)
    store_row(out + row.to(tl.int64) * width, summed, limit, PARTS)
    for q in tl.static_range(FIRST, FIRST + ATTN_TP):  # the neighbours' sums
        if q != RANK:
            row = (q - FIRST) * shard + index
            limit = tl.where(row < rows, width, 0)
            here = address(peers, RANK, slot(start, WORLD - 1 + q - FIRST - (q > RANK), slot_bytes), tl.int16)
            summed = receive_row(here, limit, waiting, dtype, PARTS, FEW)
            store_row(out + row.to(tl.int64) * width, summed, limit, PARTS)
