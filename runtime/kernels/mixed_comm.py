"""MixedComm's pairs for attention TP x DP in one kernel, over peer-to-peer memory without multicast.

gather_sum    all-reduce over a DP group and all-gather over the dp axis: every rank sends its DP group's partial rows
              to all N ranks, and sums the A ranks of each DP group. Bytes received: (N - 1) * the group's rows.
scatter_sum   reduce-scatter over the dp axis and all-reduce over a DP group: every rank sends to each rank the rows of
              its DP group, and sums N of them. Bytes received: the same.

One shot: for decode, where the way over the link is all. Rank = dp_rank * A + attn_tp_rank.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .calls import address, begin_call, count_call, slot
from .finish import spoil_row
from .messages import sum_of_ranks
from .rows import add_rows, load_row, receive_row, send_row, store_row, wide_row


@triton.jit(do_not_specialize=["looks"])
def gather_sum_kernel(
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
    ATTN_TP: tl.constexpr,
    PARTS: tl.constexpr,
    FEW: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """x [G, width], partial over the DP group, to `out` [WORLD / ATTN_TP * G, width]. Grid: G."""
    dtype: tl.constexpr = x.dtype.element_ty
    index = tl.program_id(0)
    group_rows = tl.num_programs(0)
    half, ticket, given_up, waiting = begin_call(state, error, looks, DEPENDENT)
    if given_up:
        for group in tl.static_range(WORLD // ATTN_TP):
            spoil_row(out, out, group * group_rows + index, width, width, False, PARTS)
        return
    start = half * half_bytes + index.to(tl.int64) * row_bytes
    mine = load_row(x + index.to(tl.int64) * width, width, PARTS)
    for q in tl.static_range(WORLD):
        if q != RANK:
            there = address(peers, q, slot(start, RANK - (q < RANK), slot_bytes), tl.int16)
            send_row(there, mine, width, PARTS)
    count_call(state, half, ticket, DEPENDENT)
    for q in tl.static_range(WORLD):
        if q == RANK:
            one = wide_row(mine, PARTS)
        else:
            here = address(peers, RANK, slot(start, q - (q > RANK), slot_bytes), tl.int16)
            one = receive_row(here, width, waiting, dtype, PARTS, FEW)
        if q % ATTN_TP == 0:
            summed = one
        else:
            summed = add_rows(summed, one, PARTS)
        if q % ATTN_TP == ATTN_TP - 1:
            row = (q // ATTN_TP) * group_rows + index
            store_row(out + row.to(tl.int64) * width, summed, width, PARTS)


@triton.jit(do_not_specialize=["looks"])
def scatter_sum_kernel(
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
    ATTN_TP: tl.constexpr,
    PARTS: tl.constexpr,
    FEW: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """x [WORLD / ATTN_TP * G, width], partial over all ranks, to the rows [G, width] of this DP group. Grid: G."""
    dtype: tl.constexpr = x.dtype.element_ty
    index = tl.program_id(0)
    group_rows = tl.num_programs(0)
    half, ticket, given_up, waiting = begin_call(state, error, looks, DEPENDENT)
    if given_up:
        spoil_row(out, out, index, width, width, False, PARTS)
        return
    start = half * half_bytes + index.to(tl.int64) * row_bytes
    for q in tl.static_range(WORLD):
        if q != RANK:
            row = (q // ATTN_TP) * group_rows + index
            partial = load_row(x + row.to(tl.int64) * width, width, PARTS)
            there = address(peers, q, slot(start, RANK - (q < RANK), slot_bytes), tl.int16)
            send_row(there, partial, width, PARTS)
    row = (RANK // ATTN_TP) * group_rows + index
    mine = load_row(x + row.to(tl.int64) * width, width, PARTS)
    count_call(state, half, ticket, DEPENDENT)
    own = wide_row(mine, PARTS)
    summed = sum_of_ranks(own, peers, start, slot_bytes, width, width, waiting, dtype, RANK, WORLD, None, PARTS, FEW, 0)
    store_row(out + index.to(tl.int64) * width, summed, width, PARTS)
