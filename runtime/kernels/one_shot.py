"""All-reduce in one shot: every rank sends its rows to all others, and sums what all have sent.

Bytes a rank receives: (N - 1) * M. One way over the link, so it wins where latency is all: decode; and for two ranks
always, since two shots bring no fewer bytes. Quantised (algorithm `gather` of such sums) it is half of them, or less.
One program a row: load, send, wait, sum, add, norm, store; other rows on the multiprocessor cover the wait of one.

All ranks sum in the order of ranks, and where rows are quantised use their own so like everyone else's: the same bits
everywhere.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .ask_ahead import ask_ahead
from .calls import begin_call, count_call, slot
from .finish import finish_row, spoil_row
from .messages import quantize, send, sum_of_ranks
from .rows import load_row, wide_row


@triton.jit(do_not_specialize=["looks", "next_weights", "next_rows", "next_row_bytes", "head_bytes"])
def one_shot_kernel(
    x,
    residual,
    weight,
    out,
    total,
    peers,
    state,
    error,
    next_weights,
    next_rows,
    next_row_bytes,
    head_bytes,
    width,
    eps,
    row_bytes,
    slot_bytes,
    half_bytes,
    looks,
    RANK: tl.constexpr,
    WORLD: tl.constexpr,
    PARTS: tl.constexpr,
    LAYOUT: tl.constexpr,
    THREADS: tl.constexpr,
    NORM: tl.constexpr,
    RESIDUAL: tl.constexpr,
    FEW: tl.constexpr,
    DEPENDENT: tl.constexpr,
    AHEAD: tl.constexpr,
):
    """x [T, width] of this rank to the sum in `out`. Grid: T, and AHEAD programs that ask for the next weights.

    A workspace has two halves of WORLD - 1 slots, one for each peer, of rows of `row_bytes`.
    """
    dtype: tl.constexpr = x.dtype.element_ty
    row = tl.program_id(0)
    if AHEAD:
        asking = row - (tl.num_programs(0) - AHEAD)
        if asking >= 0:
            ask_ahead(next_weights, next_rows, next_row_bytes, head_bytes, asking, AHEAD, THREADS)
            return
    offset = row.to(tl.int64) * width
    half, ticket, given_up, waiting = begin_call(state, error, looks, DEPENDENT)
    if given_up:
        spoil_row(out, total, row, width, width, NORM, PARTS)
        return
    start = half * half_bytes + row.to(tl.int64) * row_bytes
    mine = load_row(x + offset, width, PARTS)
    message = mine
    own = wide_row(mine, PARTS)
    if LAYOUT is not None:
        message, own = quantize(own, LAYOUT, PARTS)
    for q in tl.static_range(WORLD):
        if q != RANK:
            there = slot(start, RANK - (q < RANK), slot_bytes)
            send(peers, q, there, message, width, width, LAYOUT, PARTS)
    before = mine
    if RESIDUAL:
        before = load_row(residual + offset, width, PARTS)
    gain = mine
    if NORM and FEW:
        gain = load_row(weight, width, PARTS)
    count_call(state, half, ticket, DEPENDENT, AHEAD)
    summed = sum_of_ranks(
        own, peers, start, slot_bytes, width, width, waiting, dtype, RANK, WORLD, LAYOUT, PARTS, FEW, THREADS
    )
    if NORM and not FEW:
        gain = load_row(weight, width, PARTS)
    finish_row(summed, out, total, before, gain, row, width, width, eps, NORM, RESIDUAL, PARTS)
