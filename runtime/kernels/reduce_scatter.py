"""Reduce-scatter: every rank sends block i of its rows to rank i, which sums what it gets.

Bytes a rank receives: (N - 1) / N * M. One program takes row i of every block. With a norm the shard's residual add and
RMSNorm happen on the sum in registers, which saves writing and reading it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .calls import address, begin_call, count_call, slot
from .finish import finish_row, spoil_row
from .messages import sum_of_ranks
from .rows import load_row, send_row, wide_row


@triton.jit(do_not_specialize=["rows", "looks"])
def reduce_scatter_kernel(
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
    NORM: tl.constexpr,
    RESIDUAL: tl.constexpr,
    FEW: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """x [T, width] to `out` [ceil(T / WORLD), width], zero beyond T; `residual` is the shard's. Grid: ceil(T / WORLD).

    Rows beyond T are sent too, as zeros: a rank that got nothing in a call could be two calls ahead of its peers.
    """
    dtype: tl.constexpr = x.dtype.element_ty
    index = tl.program_id(0)
    shard = tl.num_programs(0)
    half, ticket, given_up, waiting = begin_call(state, error, looks, DEPENDENT)
    if given_up:
        spoil_row(out, total, index, width, width, NORM, PARTS)
        return
    start = half * half_bytes + index.to(tl.int64) * row_bytes
    for q in tl.static_range(WORLD):
        if q != RANK:
            row = q * shard + index
            partial = load_row(x + row.to(tl.int64) * width, tl.where(row < rows, width, 0), PARTS)
            there = address(peers, q, slot(start, RANK - (q < RANK), slot_bytes), tl.int16)
            send_row(there, partial, width, PARTS)
    row = RANK * shard + index
    mine = load_row(x + row.to(tl.int64) * width, tl.where(row < rows, width, 0), PARTS)
    before = mine
    if RESIDUAL:
        before = load_row(residual + index.to(tl.int64) * width, width, PARTS)
    gain = mine
    if NORM and FEW:
        gain = load_row(weight, width, PARTS)
    count_call(state, half, ticket, DEPENDENT)
    own = wide_row(mine, PARTS)
    summed = sum_of_ranks(own, peers, start, slot_bytes, width, width, waiting, dtype, RANK, WORLD, None, PARTS, FEW, 0)
    if NORM and not FEW:
        gain = load_row(weight, width, PARTS)
    finish_row(summed, out, total, before, gain, index, width, width, eps, NORM, RESIDUAL, PARTS)
