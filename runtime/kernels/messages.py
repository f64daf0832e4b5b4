"""A row as it travels: as it is, in INT8 with a scale of its own, or with scales of groups. Device functions only.

LAYOUT: the record of a row (wire/layout.py), None for rows as they are.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .calls import address, slot
from .grouped import quantize_groups, receive_groups, send_groups
from .packed import quantize_packed, receive_packed, send_packed
from .rows import add_rows, quantize_row, receive_int8_row, receive_row, scale_row, send_int8_row, send_row


@triton.jit
def quantize(row, LAYOUT: tl.constexpr, PARTS: tl.constexpr):
    """((values, scales), what they stand for in fp32) of a row in fp32."""
    if LAYOUT.is_token:
        values, wide, scale = quantize_row(row, PARTS)
        stands_for = scale_row(wide, scale, PARTS)
    elif LAYOUT.bits == 8:
        values, stands_for, scale = quantize_groups(row, LAYOUT, PARTS)
    else:
        values, stands_for, scale = quantize_packed(row, LAYOUT, PARTS)
    return (values, scale), stands_for


@triton.jit
def send(
    peers,
    rank,
    offset,
    message,
    width,
    limit,
    LAYOUT: tl.constexpr,
    PARTS: tl.constexpr,
):
    """A row to an offset of a peer's workspace: what `quantize` gives, or the row itself."""
    if LAYOUT is None:
        send_row(address(peers, rank, offset, tl.int16), message, limit, PARTS)
    elif LAYOUT.is_token:
        send_int8_row(address(peers, rank, offset, tl.int8), message[0], message[1], width, limit, PARTS)
    elif LAYOUT.bits == 8:
        send_groups(address(peers, rank, offset, tl.int8), message[0], message[1], limit, LAYOUT, PARTS)
    else:
        send_packed(address(peers, rank, offset, tl.int8), message[0], message[1], limit, LAYOUT, PARTS)


@triton.jit
def receive(
    peers,
    rank,
    offset,
    width,
    limit,
    waiting,
    dtype: tl.constexpr,
    LAYOUT: tl.constexpr,
    PARTS: tl.constexpr,
    FEW: tl.constexpr,
    THREADS: tl.constexpr,
):
    """A row in fp32, awaited at an offset of this rank's workspace."""
    if LAYOUT is None:
        row = receive_row(address(peers, rank, offset, tl.int16), limit, waiting, dtype, PARTS, FEW)
    elif LAYOUT.is_token:
        row = receive_int8_row(address(peers, rank, offset, tl.int8), width, limit, waiting, PARTS)
    elif LAYOUT.bits == 8:
        row = receive_groups(address(peers, rank, offset, tl.int8), limit, waiting, LAYOUT, PARTS, THREADS)
    else:
        row = receive_packed(address(peers, rank, offset, tl.int8), limit, waiting, LAYOUT, PARTS, THREADS)
    return row


@triton.jit
def sum_of_ranks(
    own,
    peers,
    start,
    slot_bytes,
    width,
    limit,
    waiting,
    dtype: tl.constexpr,
    RANK: tl.constexpr,
    WORLD: tl.constexpr,
    LAYOUT: tl.constexpr,
    PARTS: tl.constexpr,
    FEW: tl.constexpr,
    THREADS: tl.constexpr,
):
    """This rank's row in fp32 and those awaited in the slots of its peers, summed in fp32 in the order of ranks."""
    for q in tl.static_range(WORLD):
        if q == RANK:
            one = own
        else:
            here = slot(start, q - (q > RANK), slot_bytes)
            one = receive(peers, RANK, here, width, limit, waiting, dtype, LAYOUT, PARTS, FEW, THREADS)
        if q == 0:
            summed = one
        else:
            summed = add_rows(summed, one, PARTS)
    return summed
