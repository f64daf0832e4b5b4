"""What follows the sum of a row: it is stored, or added to the residual and normed. Device functions only."""

from __future__ import annotations

import triton
import triton.language as tl

from .reductions import sum_of
from .rows import store_row


@triton.jit
def finish_row(
    summed,
    out,
    total,
    residual,
    gain,
    row,
    width,
    limit,
    eps,
    NORM: tl.constexpr,
    RESIDUAL: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Store a sum; or, with NORM, its total with the residual, and the RMSNorm of that in `out`.

    Rounding is that of an all-reduce, then `add_rms_norm`: the sum, the total, the normed row before the weight.
    """
    dtype: tl.constexpr = out.dtype.element_ty
    place = row.to(tl.int64) * width
    if not NORM:
        store_row(out + place, summed, limit, PARTS)
        return
    squares = ()
    rounded = ()
    for part in tl.static_range(len(PARTS)):
        one = summed[part].to(dtype)
        if RESIDUAL:
            one = (one.to(tl.float32) + residual[part].to(tl.float32)).to(dtype)
        rounded = rounded + (one,)
        squares = squares + (one.to(tl.float32) * one.to(tl.float32),)
    store_row(total + place, rounded, limit, PARTS)
    scale = tl.rsqrt(sum_of(squares, PARTS) / width + eps)
    normed = ()
    for part in tl.static_range(len(PARTS)):
        one = (rounded[part].to(tl.float32) * scale).to(dtype).to(tl.float32)
        normed = normed + (gain[part].to(tl.float32) * one,)
    store_row(out + place, normed, limit, PARTS)


@triton.jit
def spoil_row(out, total, row, width, limit, NORM: tl.constexpr, PARTS: tl.constexpr):
    """NaN where `finish_row` would store a sum: nothing is known of it."""
    place = row.to(tl.int64) * width
    for part in tl.static_range(len(PARTS)):
        columns = PARTS[part][0] + tl.arange(0, PARTS[part][1])
        nothing = tl.full([PARTS[part][1]], float("nan"), tl.float32).to(out.dtype.element_ty)
        tl.store(out + place + columns, nothing, mask=columns < limit)
        if NORM:
            tl.store(total + place + columns, nothing, mask=columns < limit)
