"""Asks the L2 cache for the beginning of the weights that are read next (read_ahead.py). Device functions only."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def ask_ahead(weights, rows, row_bytes, head_bytes, number, PROGRAMS: tl.constexpr, THREADS: tl.constexpr):
    """The part of program `number` of PROGRAMS. One instruction a row; where rows run out, the last again."""
    lanes = tl.arange(0, THREADS)
    first = number * THREADS
    while first < rows:
        row = tl.minimum(first + lanes, rows - 1)
        address = weights.to(tl.int64) + row.to(tl.int64) * row_bytes
        tl.inline_asm_elementwise(
            "cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0;",
            "=r,l,r",
            [address, head_bytes],
            dtype=tl.int32,
            is_pure=False,
            pack=1,
        )
        first += PROGRAMS * THREADS
