"""A row in fp32 to the parts of its record (layout.py). Device functions only.

A row is a tile [groups, columns of a group]; columns that do not exist hold zeros. What is packed into a byte are
neighbours of one row of the tile, which a thread holds already. Everything is done by arithmetic that every device has,
on the same bits everywhere: no conversions to FP8, no division that is approximate.

A part of a record is one of

    values    int8, a byte a column [G, C] or one for two [G, C / 2]
    high      int8 [G, C / 4]: the high bits of int6; of other formats the values again
    words     the scale of each group: int16 (bf16 bits) or int32 (fp32 bits, or a spike and the scale)
    places    int32 [G]: of spikes the other spike and both columns; of other formats the words again
"""

from __future__ import annotations

import triton
import triton.language as tl

_NAN = tl.constexpr(0x7FC00000)
_INFINITE = tl.constexpr(0x7F800000)
_LEAST = tl.constexpr(0x0D800000)  # 2**-100
_ROUND = tl.constexpr(12582912.0)  # 1.5 * 2**23: a sum with it is rounded to an integer, which is then its low bits
_SIGN = tl.constexpr(-0x80000000)
_FP8_LEAST = tl.constexpr(0x3C800000)  # 2**-6: below it e4m3 has no exponent of its own
_FP8_STEP = tl.constexpr((20 << 23) + (1 << 22))  # times 1.5 * 2**20: what rounds to three bits behind the first


@triton.jit
def encode_row(x, LAYOUT: tl.constexpr):
    """(values, high, words, places) of a row [G, C] in fp32, zeros where it has no columns."""
    rest = x
    if LAYOUT.keeps_spikes:
        first, second, rest = _without_spikes(x)
    largest = tl.max(tl.abs(rest).to(tl.int32, bitcast=True), axis=1)  # of bits: NaN is above infinity
    if LAYOUT.keeps_spikes:  # a spike that is not finite spoils its group as any other value does
        largest = tl.maximum(largest, tl.where(_size_of(first) >= _INFINITE, _NAN, 0))
    scale, inverse = scale_of(largest, LAYOUT)
    scaled = rest * inverse[:, None]
    if LAYOUT.wire == "fp8_e4m3":
        values = e4m3_of(scaled).to(tl.int8)
        high = values
    else:
        whole = (scaled + _ROUND).to(tl.int32, bitcast=True)
        if LAYOUT.wire == "int8":
            values = whole.to(tl.int8)
            high = values
        else:
            values = join_pairs(whole & 15, 4).to(tl.int8)
            high = values
            if LAYOUT.wire == "int6":
                high = join_pairs(join_pairs((whole >> 4) & 3, 2), 4).to(tl.int8)
    if LAYOUT.is_token:
        words = scale
        places = words
    elif LAYOUT.keeps_spikes:
        words = ((scale >> 16) & 0xFFFF) | (_bf16_of(first) << 16)
        places = _bf16_of(second) | (_column_of(first) << 16) | (_column_of(second) << 24)
    else:
        words = (scale >> 16).to(tl.int16)
        places = words
    return values, high, words, places


@triton.jit
def scale_of(largest, LAYOUT: tl.constexpr):
    """(bits of the fp32 scales, what to multiply values by) from the bits of the largest values [G], as they travel."""
    usual = (largest >= _LEAST) & (largest < _INFINITE)
    bits = (tl.where(usual, largest, _LEAST).to(tl.float32, bitcast=True) * (1.0 / LAYOUT.largest)).to(
        tl.int32, bitcast=True
    )
    if not LAYOUT.is_token:
        bits = (bits + 0xFFFF) & -0x10000  # up to the next bf16, so that no value exceeds the largest there is
    inverse = tl.math.div_rn(tl.full(bits.shape, 1.0, tl.float32), bits.to(tl.float32, bitcast=True))
    bits = tl.where(usual, bits, tl.where(largest >= _INFINITE, _NAN, 0))
    return bits, tl.where(usual, inverse, 0.0)


@triton.jit
def round_to_e4m3(x):
    """The nearest values of e4m3 in fp32, of values of up to 448: ties to even, never -0.0; NaN of NaN."""
    bits = x.to(tl.int32, bitcast=True)
    exponent = tl.maximum(bits & _INFINITE, _FP8_LEAST)
    step = ((exponent + _FP8_STEP) | (bits & _SIGN)).to(tl.float32, bitcast=True)
    return (x + step) - step


@triton.jit
def e4m3_of(x):
    """The bits of e4m3 in int32 of values of up to 448: nearest, ties to even."""
    bits = x.to(tl.int32, bitcast=True)
    rounded = round_to_e4m3(x)
    half = (rounded * 0.00390625).to(tl.float16).to(tl.int16, bitcast=True).to(tl.int32)  # three bits less of exponent
    return ((half >> 7) & 0x7F) | ((bits >> 24) & 0x80)


@triton.jit
def join_pairs(x, BITS: tl.constexpr):
    """[G, C] to [G, C / 2]: two neighbours in one, the first in the low bits."""
    first, second = tl.split(tl.reshape(x, [x.shape[0], x.shape[1] // 2, 2]))
    return first | (second << BITS)


# ---- spikes ----------------------------------------------------------------------------------------------------------


@triton.jit
def _without_spikes(x):
    """(the largest of each group, the one after it, x with zeros in their places).

    A spike is a key [G]: the size in bf16, the sign, and 255 less its column, so that of equals a negative comes first,
    then the first column.
    """
    columns = tl.arange(0, x.shape[1])[None, :]
    bits = x.to(tl.int32, bitcast=True)
    size = bits & 0x7FFFFFFF
    # To bf16, nearest, ties to even; what is not finite would wrap around.
    size = tl.where(size >= _INFINITE, size, size + 0x7FFF + ((size >> 16) & 1))
    keys = ((size >> 16) << 9) | ((bits >> 23) & 0x100) | (255 - columns)
    first = tl.max(keys, axis=1)
    keys = tl.where(keys == first[:, None], -1, keys)
    second = tl.max(keys, axis=1)
    kept = (keys < 0) | (keys == second[:, None])
    return first, second, tl.where(kept, 0.0, x)


@triton.jit
def _size_of(key):
    """The fp32 bits of a spike's size."""
    return (key >> 9) << 16


@triton.jit
def _bf16_of(key):
    """The bf16 bits of a spike."""
    return ((key >> 9) & 0x7FFF) | ((key & 0x100) << 7)


@triton.jit
def _column_of(key):
    """Where it stands in its group."""
    return 255 - (key & 0xFF)
