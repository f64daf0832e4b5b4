"""Kernel of a sum of rows that travel as they are, one program a row: summed, added to the residual and normed.

A row is held as the kernels of symmetric memory hold it (rows.py), so its sums of squares add up in the same order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..finish import finish_row
from ..rows import add_rows, load_row, wide_row


@triton.jit(do_not_specialize=["rows"])
def row_sum_kernel(
    mine,
    got,
    residual,
    weight,
    out,
    total,
    rows,
    width,
    eps,
    RANK: tl.constexpr,
    WORLD: tl.constexpr,
    PARTS: tl.constexpr,
    NORM: tl.constexpr,
    RESIDUAL: tl.constexpr,
):
    """`mine` [rows, width] and what peers sent in `got` [WORLD, rows, width] to the sum in `out`. Grid: rows.

    What stands in this rank's place of `got` is not read.
    """
    row = tl.program_id(0)
    place = row.to(tl.int64) * width
    stride = rows.to(tl.int64) * width
    own = load_row(mine + place, width, PARTS)
    before = own
    if RESIDUAL:
        before = load_row(residual + place, width, PARTS)
    gain = own
    if NORM:
        gain = load_row(weight, width, PARTS)
    for q in tl.static_range(WORLD):
        if q == RANK:
            one = wide_row(own, PARTS)
        else:
            one = wide_row(load_row(got + q * stride + place, width, PARTS), PARTS)
        if q == 0:
            summed = one
        else:
            summed = add_rows(summed, one, PARTS)
    finish_row(summed, out, total, before, gain, row, width, width, eps, NORM, RESIDUAL, PARTS)
