"""A sum of a few rows in one launch, whose rows land in host memory: as kernels/one_shot.py, but every row is told.

In symmetric memory a row travels with no flag behind it: its receiver looks at all of it until nothing is absent, and
empties the place. Here each of that crosses a bus, where bytes are dear and a look at one place by several warps is as
many looks, one after another. So a row is written, then its flag behind a fence of the system; one thread looks for the
flag of each peer, rows are read once, and nothing is emptied.

A flag is the number of the call, which no other call has: a place that was not written in this one says another. A half
is written again two calls later, and by then its reader has ended the call between, which it began when it had read.

`state`, one int64: its low 16 bits count the programs of the running call that have begun, the others the calls, and
the sign says that a row has been given up, as kernels/calls.py has it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..calls import address, give_up, look_again, slot
from ..finish import finish_row, spoil_row
from ..rows import add_rows, load_row, store_row, wide_row
from .fences import tell, told

_CALL = tl.constexpr(1 << 16)
MOST_ROWS = (1 << 16) - 1
"""Of a call."""
FLAG_BYTES = 64
"""Behind a row: a flag, in a line of its own."""
_FLAG_BYTES = tl.constexpr(FLAG_BYTES)


def record_bytes(width: int) -> int:
    """A row of elements of 2 bytes, and its flag behind it."""
    return -(-2 * width // FLAG_BYTES) * FLAG_BYTES + FLAG_BYTES


@triton.jit
def _look(flags, number, place_bytes, OTHERS: tl.constexpr, THREADS: tl.constexpr):
    """1 if all peers have told their rows. A thread looks for each, and all warps have their answer."""
    lanes = tl.arange(0, THREADS)
    places = (flags + lanes * place_bytes.to(tl.int64)).to(tl.pointer_type(tl.int64))
    seen = tl.load(places, mask=lanes < OTHERS, other=0, volatile=True)
    return tl.min(((seen == number) | (lanes >= OTHERS)).to(tl.int32), axis=0)


@triton.jit
def _read(place, limit, PARTS: tl.constexpr):
    """A row in fp32 from where a peer has written it, past every cache."""
    row = ()
    for part in tl.static_range(len(PARTS)):
        columns = PARTS[part][0] + tl.arange(0, PARTS[part][1])
        row = row + (tl.load(place + columns, mask=columns < limit, other=0.0, volatile=True).to(tl.float32),)
    return row


@triton.jit(do_not_specialize=["looks"])
def host_one_shot_kernel(
    x,
    residual,
    weight,
    out,
    total,
    peers,
    state,
    error,
    record_bytes,
    place_bytes,
    width,
    eps,
    row_bytes,  # noqa: ARG001
    slot_bytes,  # noqa: ARG001
    half_bytes,
    looks,
    RANK: tl.constexpr,
    WORLD: tl.constexpr,
    PARTS: tl.constexpr,
    THREADS: tl.constexpr,
    NORM: tl.constexpr,
    RESIDUAL: tl.constexpr,
    FEW: tl.constexpr,  # noqa: ARG001
    DEPENDENT: tl.constexpr,  # noqa: ARG001
):
    """x [T, width] of this rank to the sum in `out`. Grid: T.

    A half of a workspace has WORLD - 1 slots of `place_bytes`, one for each peer, of records of `record_bytes`: a row,
    and its flag behind it.
    """
    dtype: tl.constexpr = x.dtype.element_ty
    row = tl.program_id(0)
    word = tl.atomic_add(state, 1, sem="relaxed")
    number = (word >> 16) + 1
    waiting = (error, state, looks)
    if word < 0:
        spoil_row(out, total, row, width, width, NORM, PARTS)
        return
    offset = row.to(tl.int64) * width
    start = (number & 1) * half_bytes + row.to(tl.int64) * record_bytes
    mine = load_row(x + offset, width, PARTS)
    before = mine
    if RESIDUAL:
        before = load_row(residual + offset, width, PARTS)
    gain = mine
    if NORM:
        gain = load_row(weight, width, PARTS)
    for q in tl.static_range(WORLD):
        if q != RANK:
            there = slot(start, RANK - (q < RANK), place_bytes)
            store_row(address(peers, q, there, dtype), mine, width, PARTS)
    flag_at = start + record_bytes - _FLAG_BYTES
    for q in tl.static_range(WORLD):
        if q != RANK:
            tell(address(peers, q, slot(flag_at, RANK - (q < RANK), place_bytes), tl.int64), number)
    programs = tl.num_programs(0)
    if (word & (_CALL - 1)) == programs - 1:
        tl.atomic_add(state, _CALL - programs, sem="relaxed")
    flags = tl.load(peers + RANK) + flag_at
    tried = 0
    seen = _look(flags, number, place_bytes, WORLD - 1, THREADS)
    while (seen == 0) & (tried < looks):
        tried = look_again(tried, waiting)
        seen = _look(flags, number, place_bytes, WORLD - 1, THREADS)
    told()
    own = wide_row(mine, PARTS)
    for q in tl.static_range(WORLD):
        if q == RANK:
            one = own
        else:
            one = _read(address(peers, RANK, slot(start, q - (q > RANK), place_bytes), dtype), width, PARTS)
        if q == 0:
            summed = one
        else:
            summed = add_rows(summed, one, PARTS)
    if seen == 0:
        give_up(waiting)
        spoil_row(out, total, row, width, width, NORM, PARTS)
    else:
        finish_row(summed, out, total, before, gain, row, width, width, eps, NORM, RESIDUAL, PARTS)
