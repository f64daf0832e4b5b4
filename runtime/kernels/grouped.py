"""A row whose values travel in 8 bits with one scale for every group of columns: INT8 and FP8 (e4m3). Device functions.

A message is the record of a composed sum (wire/layout.py): the values, then a scale of two bytes for each group.
Neither is ever 0x80 in each of its bytes: INT8 is symmetric, FP8's -0.0 is sent as 0.0, and a scale is never negative.
So rows of all formats take turns in one workspace, which is filled with that byte (rows.py).

A reduction over a group stays within a warp, so no barrier stands between a row and its message. What is defined of
rows that are not ordinary says wire/layout.py; a group that is not finite has a scale that is not.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .calls import give_up, look_again
from .reductions import largest_of
from .rows import ABSENT_8, await_one
from .wire.decode import value_of_e4m3
from .wire.encode import e4m3_of, round_to_e4m3, scale_of

ABSENT_GROUP_SCALE = tl.constexpr(-32640)  # 0x8080
_ROUND = tl.constexpr(12582912.0)  # as in rows.py
_INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def _to_e4m3(y):
    """Bits of what `round_to_e4m3` gives, as int8: exact, by the device's own conversion."""
    if _INTERPRETED:  # it does not round to even
        return e4m3_of(y).to(tl.int8)
    return y.to(tl.float8e4nv).to(tl.int8, bitcast=True)


@triton.jit
def _from_e4m3(bits):
    """e4m3 bits (int8) in fp32."""
    if _INTERPRETED:
        return value_of_e4m3(bits.to(tl.int32))
    return bits.to(tl.float8e4nv, bitcast=True).to(tl.float32)


@triton.jit
def _in_groups(part, SIZE: tl.constexpr, GROUP: tl.constexpr):
    return tl.reshape(part, [SIZE // GROUP, GROUP])


@triton.jit
def _quantize_part(part, LAYOUT: tl.constexpr, SIZE: tl.constexpr):
    """(int8 values [SIZE], what they stand for in fp32, scales [groups] in int16: the upper halves of fp32)."""
    tl.static_assert(SIZE % LAYOUT.columns == 0, "a group of columns lies in one part of a row")
    columns = _in_groups(part, SIZE, LAYOUT.columns)
    largest = tl.max(tl.abs(columns).to(tl.int32, bitcast=True), axis=1)  # NaN above infinity
    scale, inverse = scale_of(largest, LAYOUT)
    wide_scale = scale.to(tl.float32, bitcast=True)
    if LAYOUT.wire == "fp8_e4m3":
        # Not the bytes converted back: on an H200 (Triton 3.6) those of some tiles came out as other values.
        wide = round_to_e4m3(columns * inverse[:, None])
        values = _to_e4m3(wide)
    else:
        shifted = columns * inverse[:, None] + _ROUND
        values = shifted.to(tl.int32, bitcast=True).to(tl.int8)
        wide = shifted - _ROUND
    wide = wide * wide_scale[:, None]
    return tl.reshape(values, [SIZE]), tl.reshape(wide, [SIZE]), (scale >> 16).to(tl.int16)


@triton.jit
def quantize_groups(row, LAYOUT: tl.constexpr, PARTS: tl.constexpr):
    """(values, what they stand for in fp32, scales) of a row in fp32, each a tuple by parts."""
    values = ()
    wide = ()
    scales = ()
    for part in tl.static_range(len(PARTS)):
        one, stands_for, scale = _quantize_part(row[part], LAYOUT, PARTS[part][1])
        values = values + (one,)
        wide = wide + (stands_for,)
        scales = scales + (scale,)
    return values, wide, scales


@triton.jit
def send_groups(place, values, scales, limit, LAYOUT: tl.constexpr, PARTS: tl.constexpr):
    """A row to `place` (a pointer to int8), its scales behind it."""
    behind = (place + LAYOUT.scales_at).to(tl.pointer_type(tl.int16))
    for part in tl.static_range(len(PARTS)):
        columns = PARTS[part][0] + tl.arange(0, PARTS[part][1])
        tl.store(place + columns, values[part], mask=columns < limit)
    for part in tl.static_range(len(PARTS)):
        group = PARTS[part][0] // LAYOUT.columns + tl.arange(0, PARTS[part][1] // LAYOUT.columns)
        tl.store(behind + group, scales[part], mask=group * LAYOUT.columns < limit)


@triton.jit
def look_at_scales(behind, first: tl.constexpr, limit, LAYOUT: tl.constexpr, SIZE: tl.constexpr, THREADS: tl.constexpr):
    """Scales of a part [SIZE / LAYOUT.columns], the same in every warp: absent where any thread found them so.

    Every thread looks at one, so some are looked at by threads of several warps, at different times. Which one a warp
    went by would be chance; the least is one answer, and an absent scale is the only one that is negative.
    """
    COPIES: tl.constexpr = max(1, THREADS * LAYOUT.columns // SIZE)
    group = first // LAYOUT.columns + tl.arange(0, COPIES * SIZE // LAYOUT.columns) // COPIES
    found = tl.load(behind + group, mask=group * LAYOUT.columns < limit, other=0, volatile=True)
    return tl.min(tl.reshape(found.to(tl.int32), [SIZE // LAYOUT.columns, COPIES]), axis=1)


@triton.jit
def _look(place, behind, limit, LAYOUT: tl.constexpr, PARTS: tl.constexpr, THREADS: tl.constexpr):
    """(values, scales, 1 if any of them is absent), as rows.py looks at a row."""
    values = ()
    scales = ()
    flags = ()
    for part in tl.static_range(len(PARTS)):
        scale = look_at_scales(behind, PARTS[part][0], limit, LAYOUT, PARTS[part][1], THREADS)
        columns = PARTS[part][0] + tl.arange(0, PARTS[part][1])
        value = tl.load(place + columns, mask=columns < limit, other=0, volatile=True)
        absent = tl.max((_in_groups(value, PARTS[part][1], LAYOUT.columns) == ABSENT_8).to(tl.int32), axis=1)
        values = values + (value,)
        scales = scales + (scale,)
        flags = flags + (absent | (scale < 0).to(tl.int32),)
    return values, scales, largest_of(flags, PARTS)


@triton.jit
def receive_groups(place, limit, waiting, LAYOUT: tl.constexpr, PARTS: tl.constexpr, THREADS: tl.constexpr):
    """A row in fp32 from its values and scales, awaited at `place` (a pointer to int8), which is emptied; NaN if it
    never comes."""
    behind = (place + LAYOUT.scales_at).to(tl.pointer_type(tl.int16))
    await_one(behind + (LAYOUT.groups - 1), limit, ABSENT_GROUP_SCALE, waiting)
    tried = 0
    values, scales, missing = _look(place, behind, limit, LAYOUT, PARTS, THREADS)
    while (missing != 0) & (tried < waiting[2]):
        tried = look_again(tried, waiting)
        values, scales, missing = _look(place, behind, limit, LAYOUT, PARTS, THREADS)
    spoil = 0.0
    if missing != 0:
        give_up(waiting)
        spoil = float("nan")
    row = ()
    for part in tl.static_range(len(PARTS)):
        columns = PARTS[part][0] + tl.arange(0, PARTS[part][1])
        tl.store(place + columns, tl.full([PARTS[part][1]], ABSENT_8, tl.int8), mask=columns < limit)
        group = PARTS[part][0] // LAYOUT.columns + tl.arange(0, PARTS[part][1] // LAYOUT.columns)
        tl.store(
            behind + group,
            tl.full([PARTS[part][1] // LAYOUT.columns], ABSENT_GROUP_SCALE, tl.int16),
            mask=group * LAYOUT.columns < limit,
        )
        wide = _from_e4m3(values[part]) if LAYOUT.wire == "fp8_e4m3" else values[part].to(tl.float32)
        scale = (scales[part] << 16).to(tl.float32, bitcast=True) + spoil
        row = row + (tl.reshape(_in_groups(wide, PARTS[part][1], LAYOUT.columns) * scale[:, None], [PARTS[part][1]]),)
    return row
