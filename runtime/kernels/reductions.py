"""One number of a whole row, the same in every warp. Device functions only.

A reduction over a program takes a barrier or two, one such after another where a row is held as several tensors. So
parts of one size are joined element by element before, and a row cut evenly takes one reduction.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def largest_of(row, PARTS: tl.constexpr):
    """The largest of a row of integers that are not negative."""
    largest = 0
    joined = row[0]
    for part in tl.static_range(1, len(PARTS)):
        if PARTS[part][1] == PARTS[part - 1][1]:
            joined = tl.maximum(joined, row[part])
        else:
            largest = tl.maximum(largest, tl.max(joined, axis=0))
            joined = row[part]
    return tl.maximum(largest, tl.max(joined, axis=0))


@triton.jit
def sum_of(row, PARTS: tl.constexpr):
    """The sum of a row in fp32."""
    summed = 0.0
    joined = row[0]
    for part in tl.static_range(1, len(PARTS)):
        if PARTS[part][1] == PARTS[part - 1][1]:
            joined = joined + row[part]
        else:
            summed += tl.sum(joined, axis=0)
            joined = row[part]
    return summed + tl.sum(joined, axis=0)
