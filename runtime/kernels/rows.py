"""What the collectives do with one row: send it, receive it, quantise it, add and norm it. Device functions only.

A row travels with no flag behind it. The place where it arrives holds a value that no row holds; the receiver reads
until that value is gone, and puts it back for the next call but one (NCCL and TensorRT-LLM know the idea as LL and
Lamport). Nothing is flushed or signalled, so a row costs its bytes and one way over the link. Any 4 bytes of a store
arrive together, and every element is looked at, so the order of arrival does not matter.

bf16, fp16   the absent element is -0.0; a sender turns it into 0.0
INT8         the absent value is -128, which the symmetric range has not; four of them stand where the scale will

A row is a tuple of tensors, one for each of PARTS, (first column, size): a tensor's size is a power of two, and 5120
columns in one tensor of 8192 would spend three eighths of all instructions on nothing. Columns from `limit` on do not
exist; a limit of 0 stands for a row that is not there.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .calls import give_up, look_again
from .reductions import largest_of

ABSENT_16 = tl.constexpr(-32768)  # the bits of -0.0
ABSENT_8 = tl.constexpr(-128)
ABSENT_SCALE = tl.constexpr(-2139062144)  # four times -128; as fp32 it is negative, and no scale is
_LEAST = tl.constexpr(1e-36)  # 127 over a maximum below 3.8e-37 is infinite
_GLANCES = tl.constexpr(4096)  # about two milliseconds
_ROUND = tl.constexpr(12582912.0)  # 1.5 * 2**23: a sum with it is rounded to an integer, which is then its low bits


# ---- rows as they are ------------------------------------------------------------------------------------------------


@triton.jit
def load_row(place, limit, PARTS: tl.constexpr):
    """A row as it stands in memory."""
    row = ()
    for part in tl.static_range(len(PARTS)):
        columns = PARTS[part][0] + tl.arange(0, PARTS[part][1])
        row = row + (tl.load(place + columns, mask=columns < limit, other=0.0),)
    return row


@triton.jit
def store_row(place, row, limit, PARTS: tl.constexpr):
    """A row, rounded to the type of memory."""
    for part in tl.static_range(len(PARTS)):
        columns = PARTS[part][0] + tl.arange(0, PARTS[part][1])
        tl.store(place + columns, row[part].to(place.dtype.element_ty), mask=columns < limit)


@triton.jit
def wide_row(row, PARTS: tl.constexpr):
    """A row in fp32."""
    wide = ()
    for part in tl.static_range(len(PARTS)):
        wide = wide + (row[part].to(tl.float32),)
    return wide


@triton.jit
def narrow_row(row, dtype: tl.constexpr, PARTS: tl.constexpr):
    """A row in fp32, rounded to a type."""
    narrow = ()
    for part in tl.static_range(len(PARTS)):
        narrow = narrow + (row[part].to(dtype),)
    return narrow


@triton.jit
def add_rows(a, b, PARTS: tl.constexpr):
    """a + b."""
    added = ()
    for part in tl.static_range(len(PARTS)):
        added = added + (a[part] + b[part],)
    return added


@triton.jit
def send_row(place, row, limit, PARTS: tl.constexpr):
    """A row of bf16 or fp16 to `place` (a pointer to int16), without the absent element."""
    for part in tl.static_range(len(PARTS)):
        columns = PARTS[part][0] + tl.arange(0, PARTS[part][1])
        bits = row[part].to(tl.int16, bitcast=True)
        bits = tl.where(bits == ABSENT_16, 0, bits).to(tl.int16)
        tl.store(place + columns, bits, mask=columns < limit)


@triton.jit
def _look(place, limit, absent: tl.constexpr, PARTS: tl.constexpr):
    """(what stands at a place, 1 if any of it is absent). Every warp has the same answer: it is that of them all."""
    row = ()
    flags = ()
    for part in tl.static_range(len(PARTS)):
        columns = PARTS[part][0] + tl.arange(0, PARTS[part][1])
        bits = tl.load(place + columns, mask=columns < limit, other=0, volatile=True)
        row = row + (bits,)
        flags = flags + ((bits == absent).to(tl.int32),)
    return row, largest_of(flags, PARTS)


@triton.jit
def await_one(place, limit, absent: tl.constexpr, waiting):
    """Look at one value until it is there, for a few milliseconds at most. What it was is not said.

    Quicker to look at again than a row. Warps may leave at different times: there is no barrier in here, and nothing
    that steers what follows.
    """
    tried = 0
    seen = tl.load(place, mask=limit > 0, other=0, volatile=True)
    while (seen == absent) & (tried < _GLANCES) & (tried < waiting[2]):
        seen = tl.load(place, volatile=True)
        tried += 1


@triton.jit
def _empty(place, limit, absent: tl.constexpr, PARTS: tl.constexpr):
    for part in tl.static_range(len(PARTS)):
        columns = PARTS[part][0] + tl.arange(0, PARTS[part][1])
        tl.store(place + columns, tl.full([PARTS[part][1]], absent, place.dtype.element_ty), mask=columns < limit)


@triton.jit
def receive_row(place, limit, waiting, dtype: tl.constexpr, PARTS: tl.constexpr, FEW: tl.constexpr):
    """A row in fp32, awaited at `place` (a pointer to int16), which is emptied. NaN if it never comes.

    FEW: few programs run, so latency is all, and one element is waited for before the row is.
    """
    if FEW:
        await_one(place + (limit - 1), limit, ABSENT_16, waiting)
    tried = 0
    bits, missing = _look(place, limit, ABSENT_16, PARTS)
    while (missing != 0) & (tried < waiting[2]):
        tried = look_again(tried, waiting)
        bits, missing = _look(place, limit, ABSENT_16, PARTS)
    _empty(place, limit, ABSENT_16, PARTS)
    spoil = 0.0
    if missing != 0:
        give_up(waiting)
        spoil = float("nan")
    row = ()
    for part in tl.static_range(len(PARTS)):
        row = row + (bits[part].to(dtype, bitcast=True).to(tl.float32) + spoil,)
    return row


# ---- rows in INT8 ----------------------------------------------------------------------------------------------------


@triton.jit
def quantize_row(row, PARTS: tl.constexpr):
    """(INT8 values, those values in fp32, fp32 scale) of a row in fp32: scale = max|x| / 127, nearest, ties to even.

    The maximum is taken of the bits, whose order puts NaN above infinity: a row with either has a scale that is not
    finite, and nothing finite comes out of it. Neither gives the absent value: the low bits of NaN are not -128.
    """
    sizes = ()
    for part in tl.static_range(len(PARTS)):
        sizes = sizes + (tl.abs(row[part]).to(tl.int32, bitcast=True),)
    largest = largest_of(sizes, PARTS).to(tl.float32, bitcast=True)
    inverse = 127.0 / tl.where(largest < _LEAST, 1.0, largest)  # of a row of next to nothing this gives zeros
    values = ()
    wide = ()
    for part in tl.static_range(len(PARTS)):
        shifted = row[part] * inverse + _ROUND
        values = values + (shifted.to(tl.int32, bitcast=True).to(tl.int8),)
        wide = wide + (shifted - _ROUND,)
    return values, wide, largest / 127.0


@triton.jit
def scale_row(row, scale, PARTS: tl.constexpr):
    """INT8 values times their scale, in fp32."""
    scaled = ()
    for part in tl.static_range(len(PARTS)):
        scaled = scaled + (row[part].to(tl.float32) * scale,)
    return scaled


@triton.jit
def send_int8_row(place, values, scale, width, limit, PARTS: tl.constexpr):
    """A row in INT8 to `place`, its scale behind it."""
    for part in tl.static_range(len(PARTS)):
        columns = PARTS[part][0] + tl.arange(0, PARTS[part][1])
        tl.store(place + columns, values[part], mask=columns < limit)
    tl.store((place + width).to(tl.pointer_type(tl.int32)), scale.to(tl.int32, bitcast=True), mask=limit > 0)


@triton.jit
def _look_int8(place, behind, limit, PARTS: tl.constexpr):
    """(values, scale, 1 if any of them is absent). As `_look`: a scale that one warp has not seen is absent for all."""
    scale = tl.load(behind, mask=limit > 0, other=0, volatile=True)
    row = ()
    flags = ()
    for part in tl.static_range(len(PARTS)):
        columns = PARTS[part][0] + tl.arange(0, PARTS[part][1])
        values = tl.load(place + columns, mask=columns < limit, other=0, volatile=True)
        row = row + (values,)
        flags = flags + (((values == ABSENT_8) | (scale == ABSENT_SCALE)).to(tl.int32),)
    return row, scale, largest_of(flags, PARTS)


@triton.jit
def receive_int8_row(place, width, limit, waiting, PARTS: tl.constexpr):
    """A row in fp32 from INT8 values and the scale behind them; as `receive_row`. The scale is looked at first."""
    behind = (place + width).to(tl.pointer_type(tl.int32))
    await_one(behind, limit, ABSENT_SCALE, waiting)
    tried = 0
    values, scale, missing = _look_int8(place, behind, limit, PARTS)
    while (missing != 0) & (tried < waiting[2]):
        tried = look_again(tried, waiting)
        values, scale, missing = _look_int8(place, behind, limit, PARTS)
    _empty(place, limit, ABSENT_8, PARTS)
    tl.store(behind, ABSENT_SCALE, mask=limit > 0)
    factor = scale.to(tl.float32, bitcast=True)
    if missing != 0:
        give_up(waiting)
        factor = float("nan")
    return scale_row(values, factor, PARTS)
