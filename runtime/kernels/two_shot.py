"""All-reduce in two shots: rank i sums block i of the rows, and sends the sums to all others.

Bytes a rank receives: 2 (N - 1) / N * M, the least there is. Two ways over the link, so it wins where bytes are all:
prefill on more than two ranks. One program takes row i of every block: send, wait, sum, send, wait, add, norm, store;
while it waits, other programs on the multiprocessor have the link.

Sums are made by their owner alone, in the order of ranks, and the owner uses what it sends: the same bits everywhere.
Where rows are quantised its own partial enters in full precision, and the sum is quantised again.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .calls import begin_call, count_call, slot
from .finish import finish_row, spoil_row
from .messages import quantize, receive, send, sum_of_ranks
from .rows import load_row, narrow_row, wide_row


@triton.jit(do_not_specialize=["rows", "looks"])
def two_shot_kernel(
    x,
    residual,
    weight,
    out,
    total,
    peers,
    state,
    error,
    rows,
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
):
    """x [T, width] of this rank to the sum in `out`. Grid: ceil(T / WORLD).

    A half of the workspace has WORLD - 1 slots for partials, then WORLD - 1 for sums, of ceil(T / WORLD) rows each.
    Partials beyond T are sent too, as zeros: where owner and sender have no row, one would hear of the other through
    a third rank alone, and could be two calls ahead of it once that has given up.
    """
    dtype: tl.constexpr = x.dtype.element_ty
    index = tl.program_id(0)
    shard = tl.num_programs(0)
    half, ticket, given_up, waiting = begin_call(state, error, looks, DEPENDENT)
    if given_up:
        for q in tl.static_range(WORLD):
            row = q * shard + index
            spoil_row(out, total, row, width, tl.where(row < rows, width, 0), NORM, PARTS)
        return
    start = half * half_bytes + index.to(tl.int64) * row_bytes

    for q in tl.static_range(WORLD):  # partials to their owners
        if q != RANK:
            row = q * shard + index
            partial = load_row(x + row.to(tl.int64) * width, tl.where(row < rows, width, 0), PARTS)
            there = slot(start, RANK - (q < RANK), slot_bytes)
            if LAYOUT is not None:
                message, _ = quantize(wide_row(partial, PARTS), LAYOUT, PARTS)
            else:
                message = partial
            send(peers, q, there, message, width, width, LAYOUT, PARTS)

    row = RANK * shard + index
    limit = tl.where(row < rows, width, 0)
    mine = load_row(x + row.to(tl.int64) * width, limit, PARTS)
    before = mine
    if RESIDUAL:
        before = load_row(residual + row.to(tl.int64) * width, limit, PARTS)
    gain = mine
    if NORM and FEW:
        gain = load_row(weight, width, PARTS)
    count_call(state, half, ticket, DEPENDENT)
    own = wide_row(mine, PARTS)
    summed = sum_of_ranks(
        own, peers, start, slot_bytes, width, width, waiting, dtype, RANK, WORLD, LAYOUT, PARTS, FEW, THREADS
    )
    if LAYOUT is not None:
        message, summed = quantize(summed, LAYOUT, PARTS)
    else:
        message = narrow_row(summed, dtype, PARTS)
    for q in tl.static_range(WORLD):
        if q != RANK:
            there = slot(start, WORLD - 1 + RANK - (q < RANK), slot_bytes)
            send(peers, q, there, message, width, limit, LAYOUT, PARTS)
    if NORM and not FEW:
        gain = load_row(weight, width, PARTS)
    finish_row(summed, out, total, before, gain, row, width, limit, eps, NORM, RESIDUAL, PARTS)

    for q in tl.static_range(WORLD):  # the others' sums
        if q != RANK:
            row = q * shard + index
            limit = tl.where(row < rows, width, 0)
            if RESIDUAL:
                before = load_row(residual + row.to(tl.int64) * width, limit, PARTS)
            here = slot(start, WORLD - 1 + q - (q > RANK), slot_bytes)
            summed = receive(peers, RANK, here, width, limit, waiting, dtype, LAYOUT, PARTS, FEW, THREADS)
            finish_row(summed, out, total, before, gain, row, width, limit, eps, NORM, RESIDUAL, PARTS)
