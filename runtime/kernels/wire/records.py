"""Kernels of a composed sum, one program a row: rows to records, records of all ranks to records of their sum, records
to rows that are summed, added to the residual and normed.

LAYOUT is the RowLayout of the rows; a place is a pointer to int8.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .decode import decode_row
from .encode import encode_row

# ---- a record in memory ----------------------------------------------------------------------------------------------


@triton.jit
def columns_of(LAYOUT: tl.constexpr):
    """[G, C]: which column of the row each of a tile is."""
    return _numbered(LAYOUT.tile_groups, LAYOUT.tile_columns)


@triton.jit
def store_record(place, values, high, words, places, LAYOUT: tl.constexpr):
    """The parts of a record (encode.py) to `place`."""
    SHARED: tl.constexpr = LAYOUT.columns_of_byte
    at = _numbered(LAYOUT.tile_groups, LAYOUT.tile_columns // SHARED)
    tl.store(place + at, values, mask=at < LAYOUT.padded // SHARED)
    if LAYOUT.wire == "int6":
        at = _numbered(LAYOUT.tile_groups, LAYOUT.tile_columns // 4)
        tl.store(place + LAYOUT.padded // 2 + at, high, mask=at < LAYOUT.padded // 4)
    group = tl.arange(0, LAYOUT.tile_groups)
    inside = group < LAYOUT.groups
    behind = place + LAYOUT.scales_at
    if LAYOUT.keeps_spikes:
        behind = behind.to(tl.pointer_type(tl.int32))
        tl.store(behind + 2 * group, words, mask=inside)
        tl.store(behind + 2 * group + 1, places, mask=inside)
    elif LAYOUT.is_token:
        tl.store(behind.to(tl.pointer_type(tl.int32)) + group, words, mask=inside)
    else:
        tl.store(behind.to(tl.pointer_type(tl.int16)) + group, words, mask=inside)


@triton.jit
def load_record(place, LAYOUT: tl.constexpr):
    """(values, high, words, places) of the record at `place`; zeros where the tile is larger than the row."""
    SHARED: tl.constexpr = LAYOUT.columns_of_byte
    at = _numbered(LAYOUT.tile_groups, LAYOUT.tile_columns // SHARED)
    values = tl.load(place + at, mask=at < LAYOUT.padded // SHARED, other=0)
    high = values
    if LAYOUT.wire == "int6":
        at = _numbered(LAYOUT.tile_groups, LAYOUT.tile_columns // 4)
        high = tl.load(place + LAYOUT.padded // 2 + at, mask=at < LAYOUT.padded // 4, other=0)
    group = tl.arange(0, LAYOUT.tile_groups)
    inside = group < LAYOUT.groups
    behind = place + LAYOUT.scales_at
    if LAYOUT.keeps_spikes:
        behind = behind.to(tl.pointer_type(tl.int32))
        words = tl.load(behind + 2 * group, mask=inside, other=0)
        places = tl.load(behind + 2 * group + 1, mask=inside, other=0)
    elif LAYOUT.is_token:
        words = tl.load(behind.to(tl.pointer_type(tl.int32)) + group, mask=inside, other=0)
        places = words
    else:
        words = tl.load(behind.to(tl.pointer_type(tl.int16)) + group, mask=inside, other=0)
        places = words
    return values, high, words, places


@triton.jit
def quantize_to(place, x, LAYOUT: tl.constexpr):
    """A row [G, C] in fp32, zeros where it has no columns, to its record at `place`."""
    values, high, words, places = encode_row(x, LAYOUT)
    store_record(place, values, high, words, places, LAYOUT)


@triton.jit
def dequantize_from(place, LAYOUT: tl.constexpr):
    """The row [G, C] in fp32 of the record at `place`."""
    values, high, words, places = load_record(place, LAYOUT)
    return decode_row(values, high, words, places, LAYOUT)


@triton.jit
def _numbered(ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """[ROWS, COLUMNS]: 0, 1, 2 and so on."""
    return tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]


# ---- kernels ---------------------------------------------------------------------------------------------------------


@triton.jit(do_not_specialize=["rows"])
def quantize_kernel(x, out, rows, LAYOUT: tl.constexpr):
    """x [rows, width] to records. Grid: records; those beyond `rows` are of zeros."""
    row = tl.program_id(0).to(tl.int64)
    columns = columns_of(LAYOUT)
    inside = (columns < LAYOUT.width) & (row < rows)
    tile = tl.load(x + row * LAYOUT.width + columns, mask=inside, other=0.0).to(tl.float32)
    quantize_to(out + row * LAYOUT.row_bytes, tile, LAYOUT)


@triton.jit
def _sum_of_copies(place, stride, COPIES: tl.constexpr, LAYOUT: tl.constexpr):
    """The sum in fp32, in the order of ranks, of records that stand `stride` records apart."""
    summed = dequantize_from(place, LAYOUT)
    for copy in tl.static_range(1, COPIES):
        summed += dequantize_from(place + copy * stride * LAYOUT.row_bytes, LAYOUT)
    return summed


@triton.jit(do_not_specialize=["shard"])
def reduce_kernel(got, out, shard, COPIES: tl.constexpr, LAYOUT: tl.constexpr):
    """Records of every rank [COPIES, shard] to records of their sums [shard]. Grid: shard."""
    row = tl.program_id(0).to(tl.int64) * LAYOUT.row_bytes
    quantize_to(out + row, _sum_of_copies(got + row, shard.to(tl.int64), COPIES, LAYOUT), LAYOUT)


@triton.jit(do_not_specialize=["shard"])
def sum_kernel(
    got,
    residual,
    weight,
    out,
    total,
    shard,
    eps,
    COPIES: tl.constexpr,
    NORM: tl.constexpr,
    RESIDUAL: tl.constexpr,
    LAYOUT: tl.constexpr,
):
    """Records [COPIES, shard] to the rows of their sum in `out`; with NORM to their total with the residual, and its
    RMSNorm in `out`. Grid: rows. Rounding is that of a sum, then `add_rms_norm`."""
    row = tl.program_id(0).to(tl.int64)
    columns = columns_of(LAYOUT)
    inside = columns < LAYOUT.width
    at = row * LAYOUT.width + columns
    if RESIDUAL:
        before = tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    summed = _sum_of_copies(got + row * LAYOUT.row_bytes, shard.to(tl.int64), COPIES, LAYOUT)
    summed = summed.to(out.dtype.element_ty)
    if not NORM:
        tl.store(out + at, summed, mask=inside)
        return
    if RESIDUAL:
        summed = (summed.to(tl.float32) + before).to(out.dtype.element_ty)
    tl.store(total + at, summed, mask=inside)
    wide = tl.where(inside, summed.to(tl.float32), 0.0)
    scale = tl.rsqrt(tl.sum(tl.sum(wide * wide, axis=1), axis=0) / LAYOUT.width + eps)
    gain = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    normed = (wide * scale).to(out.dtype.element_ty).to(tl.float32)
    tl.store(out + at, (gain * normed).to(out.dtype.element_ty), mask=inside)
