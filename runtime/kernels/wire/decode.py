"""The record of a row (layout.py) to that row in fp32. Device functions only.

The parts of a record are those of encode.py. A value is its integer times the scale, in fp32; a spike is added to the
zero in its place, so what spoils a group spoils its spikes.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def decode_row(values, high, words, places, LAYOUT: tl.constexpr):
    """The row [G, C] in fp32 of (values, high, words, places)."""
    if LAYOUT.is_token:
        scale = words.to(tl.float32, bitcast=True)
    else:
        scale = (words.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    bytes_ = values.to(tl.int32)
    if LAYOUT.wire == "int8":
        whole = bytes_.to(tl.float32)
    elif LAYOUT.wire == "fp8_e4m3":
        whole = value_of_e4m3(bytes_)
    elif LAYOUT.wire == "int6":
        low = part_pairs(bytes_ & 0xFF, 4, 0xF)
        top = part_pairs(part_pairs(high.to(tl.int32) & 0xFF, 4, 0xF), 2, 3)
        whole = (((low | (top << 4)) << 26) >> 26).to(tl.float32)
    else:
        whole = ((part_pairs(bytes_ & 0xFF, 4, 0xF) << 28) >> 28).to(tl.float32)
    row = whole * scale[:, None]
    if LAYOUT.keeps_spikes:
        row += _spikes(words, places, whole.shape[1])
    return row


@triton.jit
def value_of_e4m3(bits):
    """e4m3 in the low byte of int32 to fp32."""
    half = ((bits & 0x7F) << 7) | ((bits & 0x80) << 8)
    return half.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32) * 256.0


@triton.jit
def part_pairs(x, BITS: tl.constexpr, MASK: tl.constexpr):
    """[G, C / 2] to [G, C]: what `join_pairs` joined."""
    return tl.reshape(tl.join(x & MASK, (x >> BITS) & MASK), [x.shape[0], x.shape[1] * 2])


@triton.jit
def _spikes(words, places, COLUMNS: tl.constexpr):
    """[G, C] with the two values of each group that were kept, and zeros."""
    columns = tl.arange(0, COLUMNS)[None, :]
    first = (words & -0x10000).to(tl.float32, bitcast=True)
    second = (places << 16).to(tl.float32, bitcast=True)
    at_first = columns == ((places >> 16) & 0xFF)[:, None]
    at_second = columns == ((places >> 24) & 0xFF)[:, None]
    return tl.where(at_first, first[:, None], tl.where(at_second, second[:, None], 0.0))
