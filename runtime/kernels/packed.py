"""A row whose values travel in fewer than 8 bits, packed into words of four bytes. Device functions only.

Values and scales are those of a composed sum's records (wire/encode.py); here they are arranged so that no word that
is sent is the one that stands for absence, and words are looked at whole: any four bytes of a store arrive together.

    int4, int4_spikes   eight columns a word. The last half byte is never 8 (-8): values are symmetric
    int6                sixteen columns in three words, a plane of such words behind the other. Four columns are 24
                        bits: their low halves, then their high ones, with one bit turned so that the word of absence
                        would be a last column of -32. The fourth of such numbers is in the high bytes of three words

Scales follow as in grouped.py; with spikes eight bytes a group, of which the first word holds a scale, which is never
negative, and the second two columns, which are never the same.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .calls import give_up, look_again
from .grouped import ABSENT_GROUP_SCALE, look_at_scales
from .reductions import largest_of
from .rows import await_one
from .wire.decode import decode_row, part_pairs
from .wire.encode import encode_row, join_pairs

_ABSENT_WORD = tl.constexpr(-2139062144)  # 0x80808080
_TURNED = tl.constexpr(0x8000)  # of 0x808080 leaves the code of -32 in the last column


# ---- bytes and words -------------------------------------------------------------------------------------------------


@triton.jit
def _to_words(values, high, LAYOUT: tl.constexpr):
    """The words of a part, a tuple of planes, each [groups, words of a group]."""
    low = join_pairs(values.to(tl.int32) & 0xFF, 8)  # of four columns
    if LAYOUT.wire == "int6":
        four = (low ^ _TURNED) | ((high.to(tl.int32) & 0xFF) << 16)
        even, odd = tl.split(tl.reshape(four, [four.shape[0], four.shape[1] // 4, 2, 2]))
        a, c = tl.split(even)
        b, d = tl.split(odd)
        words = (a | ((d & 0xFF) << 24), b | (((d >> 8) & 0xFF) << 24), c | ((d >> 16) << 24))
    else:
        words = (join_pairs(low, 16),)
    return words


@triton.jit
def _from_words(words, LAYOUT: tl.constexpr):
    """(values, high) of the planes of a part, as decode.py takes them."""
    if LAYOUT.wire == "int6":
        d = ((words[0] >> 24) & 0xFF) | (((words[1] >> 24) & 0xFF) << 8) | (((words[2] >> 24) & 0xFF) << 16)
        even = tl.join(words[0] & 0xFFFFFF, words[2] & 0xFFFFFF)
        odd = tl.join(words[1] & 0xFFFFFF, d)
        four = tl.reshape(tl.join(even, odd), [d.shape[0], d.shape[1] * 4])
        values = part_pairs((four & 0xFFFF) ^ _TURNED, 8, 0xFF).to(tl.int8)
        high = (four >> 16).to(tl.int8)
    else:
        values = part_pairs(part_pairs(words[0], 16, 0xFFFF), 8, 0xFF).to(tl.int8)
        high = values
    return values, high


# ---- rows ------------------------------------------------------------------------------------------------------------


@triton.jit
def quantize_packed(row, LAYOUT: tl.constexpr, PARTS: tl.constexpr):
    """(words, what they stand for in fp32, scales) of a row in fp32, each a tuple by parts; scales as encode.py has
    them, of two words with spikes."""
    words = ()
    wide = ()
    scales = ()
    for part in tl.static_range(len(PARTS)):
        tl.static_assert(PARTS[part][1] % LAYOUT.columns == 0, "a group of columns lies in one part of a row")
        tile = tl.reshape(row[part], [PARTS[part][1] // LAYOUT.columns, LAYOUT.columns])
        values, high, scale, places = encode_row(tile, LAYOUT)
        stands_for = decode_row(values, high, scale, places, LAYOUT)
        words = words + (_to_words(values, high, LAYOUT),)
        wide = wide + (tl.reshape(stands_for, [PARTS[part][1]]),)
        scales = scales + ((scale, places),)
    return words, wide, scales


@triton.jit
def send_packed(place, words, scales, limit, LAYOUT: tl.constexpr, PARTS: tl.constexpr):
    """A row to `place` (a pointer to int8), its scales behind it."""
    EACH: tl.constexpr = 16 if LAYOUT.wire == "int6" else 8
    behind = place + LAYOUT.scales_at
    for part in tl.static_range(len(PARTS)):
        word = PARTS[part][0] // EACH + tl.arange(0, PARTS[part][1] // EACH)
        for plane in tl.static_range(len(words[part])):
            there = place.to(tl.pointer_type(tl.int32)) + plane * (LAYOUT.padded // EACH) + word
            tl.store(there, tl.reshape(words[part][plane], [PARTS[part][1] // EACH]), mask=word * EACH < limit)
        group = PARTS[part][0] // LAYOUT.columns + tl.arange(0, PARTS[part][1] // LAYOUT.columns)
        if LAYOUT.keeps_spikes:
            pairs = behind.to(tl.pointer_type(tl.int32)) + 2 * group
            tl.store(pairs, scales[part][0], mask=group * LAYOUT.columns < limit)
            tl.store(pairs + 1, scales[part][1], mask=group * LAYOUT.columns < limit)
        else:
            tl.store(behind.to(tl.pointer_type(tl.int16)) + group, scales[part][0], mask=group * LAYOUT.columns < limit)


@triton.jit
def _look_at_words(
    place, stride: tl.constexpr, first: tl.constexpr, most, GROUPS: tl.constexpr, EACH: tl.constexpr,
    THREADS: tl.constexpr,
):  # fmt: skip
    """(words [GROUPS, EACH], how many of each group are absent, or less): every `stride`-th from `first`, below `most`.

    A word that several threads look at is absent if any found it so, as in grouped.py; those who found it are agreed.
    """
    COPIES: tl.constexpr = max(1, THREADS // (GROUPS * EACH))
    word = first + tl.arange(0, GROUPS * EACH * COPIES) // COPIES
    found = tl.load(place + stride * word, mask=word < most, other=0, volatile=True)
    found = tl.reshape(found, [GROUPS, EACH, COPIES])
    absent = tl.max(tl.max((found == _ABSENT_WORD).to(tl.int32), axis=2), axis=1)
    return tl.max(found, axis=2), absent


@triton.jit
def _look(place, limit, LAYOUT: tl.constexpr, PARTS: tl.constexpr, THREADS: tl.constexpr):
    """(words, scales, 1 if any of them is absent), as rows.py looks at a row."""
    EACH: tl.constexpr = 16 if LAYOUT.wire == "int6" else 8
    PLANES: tl.constexpr = 3 if LAYOUT.wire == "int6" else 1
    behind = place + LAYOUT.scales_at
    words = ()
    scales = ()
    flags = ()
    for part in tl.static_range(len(PARTS)):
        planes = ()
        missing = 0
        for plane in tl.static_range(PLANES):
            base = place.to(tl.pointer_type(tl.int32)) + plane * (LAYOUT.padded // EACH)
            found, absent = _look_at_words(
                base,
                1,
                PARTS[part][0] // EACH,
                limit // EACH,
                PARTS[part][1] // LAYOUT.columns,
                LAYOUT.columns // EACH,
                THREADS,
            )
            planes = planes + (found,)
            missing = missing | absent
        if LAYOUT.keeps_spikes:
            pairs = behind.to(tl.pointer_type(tl.int32))
            most = (limit + LAYOUT.columns - 1) // LAYOUT.columns
            first, no_first = _look_at_words(
                pairs, 2, PARTS[part][0] // LAYOUT.columns, most, PARTS[part][1] // LAYOUT.columns, 1, THREADS
            )
            second, no_second = _look_at_words(
                pairs + 1, 2, PARTS[part][0] // LAYOUT.columns, most, PARTS[part][1] // LAYOUT.columns, 1, THREADS
            )
            scale = (
                tl.reshape(first, [PARTS[part][1] // LAYOUT.columns]),
                tl.reshape(second, [PARTS[part][1] // LAYOUT.columns]),
            )
            missing = missing | no_first | no_second
        else:
            one = look_at_scales(
                behind.to(tl.pointer_type(tl.int16)), PARTS[part][0], limit, LAYOUT, PARTS[part][1], THREADS
            )
            scale = (one, one)
            missing = missing | (one < 0).to(tl.int32)
        words = words + (planes,)
        scales = scales + (scale,)
        flags = flags + (missing,)
    return words, scales, largest_of(flags, PARTS)


@triton.jit
def _empty(place, limit, LAYOUT: tl.constexpr, PARTS: tl.constexpr):
    """All that `send_packed` writes, absent."""
    EACH: tl.constexpr = 16 if LAYOUT.wire == "int6" else 8
    PLANES: tl.constexpr = 3 if LAYOUT.wire == "int6" else 1
    behind = place + LAYOUT.scales_at
    for part in tl.static_range(len(PARTS)):
        word = PARTS[part][0] // EACH + tl.arange(0, PARTS[part][1] // EACH)
        nothing = tl.full([PARTS[part][1] // EACH], _ABSENT_WORD, tl.int32)
        for plane in tl.static_range(PLANES):
            there = place.to(tl.pointer_type(tl.int32)) + plane * (LAYOUT.padded // EACH) + word
            tl.store(there, nothing, mask=word * EACH < limit)
        group = PARTS[part][0] // LAYOUT.columns + tl.arange(0, PARTS[part][1] // LAYOUT.columns)
        if LAYOUT.keeps_spikes:
            nothing = tl.full([PARTS[part][1] // LAYOUT.columns], _ABSENT_WORD, tl.int32)
            pairs = behind.to(tl.pointer_type(tl.int32)) + 2 * group
            tl.store(pairs, nothing, mask=group * LAYOUT.columns < limit)
            tl.store(pairs + 1, nothing, mask=group * LAYOUT.columns < limit)
        else:
            nothing = tl.full([PARTS[part][1] // LAYOUT.columns], ABSENT_GROUP_SCALE, tl.int16)
            tl.store(behind.to(tl.pointer_type(tl.int16)) + group, nothing, mask=group * LAYOUT.columns < limit)


@triton.jit
def receive_packed(place, limit, waiting, LAYOUT: tl.constexpr, PARTS: tl.constexpr, THREADS: tl.constexpr):
    """A row in fp32 from its words and scales, awaited at `place` (a pointer to int8), which is emptied; NaN if it
    never comes."""
    await_one(place.to(tl.pointer_type(tl.int32)), limit, _ABSENT_WORD, waiting)
    tried = 0
    words, scales, missing = _look(place, limit, LAYOUT, PARTS, THREADS)
    while (missing != 0) & (tried < waiting[2]):
        tried = look_again(tried, waiting)
        words, scales, missing = _look(place, limit, LAYOUT, PARTS, THREADS)
    _empty(place, limit, LAYOUT, PARTS)
    spoil = 0.0
    if missing != 0:
        give_up(waiting)
        spoil = float("nan")
    row = ()
    for part in tl.static_range(len(PARTS)):
        values, high = _from_words(words[part], LAYOUT)
        one = decode_row(values, high, scales[part][0], scales[part][1], LAYOUT)
        columns = PARTS[part][0] + tl.arange(0, PARTS[part][1])
        # A norm sums over all columns of a part, and words beyond the row are no zeros.
        row = row + (tl.where(columns < limit, tl.reshape(one, [PARTS[part][1]]) + spoil, 0.0),)
    return row
