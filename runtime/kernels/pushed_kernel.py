"""The kernels of rows that are pushed: their sum where they land, and what goes ahead of a use. See pushed.py."""

from __future__ import annotations

import triton
import triton.language as tl

from .calls import address, begin_call, count_call, give_up, look_again, slot
from .finish import finish_row, spoil_row
from .rows import add_rows, load_row, wide_row

_GLANCES = tl.constexpr(4096)
_TURN = tl.constexpr(3)  # of 1 and 2 it makes the other, and neither of anything else


@triton.jit
def _flags(peers, rank, flags_at, half, number, WORLD: tl.constexpr, FLAGS: tl.constexpr):
    """Pointer to the flags of a half, of the peer of a number, in the buffer of a rank."""
    base = (tl.load(peers + rank) + flags_at).to(tl.pointer_type(tl.int32))
    return base + (half * (WORLD - 1) + number) * FLAGS


@triton.jit
def _words(peers, rank, flags_at, half, WORLD: tl.constexpr, FLAGS: tl.constexpr):
    """Pointer to what a rank sends as flags of a half: behind all flags of its own buffer."""
    return _flags(peers, rank, flags_at, 2, half, WORLD, FLAGS)


@triton.jit
def _await_flag(flag, wanted, waiting):
    """Whether a flag has come. The same in every warp, and what is loaded behind it is as new as the flag."""
    tried = 0
    seen = tl.load(flag, volatile=True)
    while (seen != wanted) & (tried < _GLANCES) & (tried < waiting[2]):
        seen = tl.load(flag, volatile=True)  # warps may leave at different times: there is no barrier in here
        tried += 1
    tried = 0
    seen = tl.atomic_add(flag, 0, sem="acquire", scope="sys")
    while (seen != wanted) & (tried < waiting[2]):
        tried = look_again(tried, waiting)
        seen = tl.atomic_add(flag, 0, sem="acquire", scope="sys")
    return seen == wanted


@triton.jit
def _spoil(peers, flags_at, RANK: tl.constexpr, WORLD: tl.constexpr, FLAGS: tl.constexpr):
    """No flag of this rank counts any more: neither what has been sent nor what will be."""
    numbers = tl.arange(0, FLAGS)
    for half in tl.static_range(2):
        words = _words(peers, RANK, flags_at, half, WORLD, FLAGS)
        tl.store(words + numbers, tl.zeros([FLAGS], tl.int32))
        for q in tl.static_range(WORLD):
            if q != RANK:
                flags = _flags(peers, q, flags_at, half, RANK - (q < RANK), WORLD, FLAGS)
                tl.store(flags + numbers, tl.zeros([FLAGS], tl.int32))


@triton.jit(do_not_specialize=["half", "block_rows", "looks"])
def pushed_kernel(
    x,
    residual,
    weight,
    out,
    total,
    peers,
    uses,
    error,
    state,
    half,
    half_bytes,
    flags_at,
    block_rows,
    width,
    eps,
    row_bytes,
    slot_bytes,
    looks,
    RANK: tl.constexpr,
    WORLD: tl.constexpr,
    FLAGS: tl.constexpr,
    PARTS: tl.constexpr,
    NORM: tl.constexpr,
    RESIDUAL: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """x [T, width] of this rank and the rows that its peers push, to the sum in `out`. Grid: T.

    `uses`: int64 [2], the state of each half, whose bit 32 turns with every use; `state`: that of the group.
    """
    dtype: tl.constexpr = x.dtype.element_ty
    row = tl.program_id(0)
    use, ticket, given_up, waiting = begin_call(uses + half, error, looks, DEPENDENT)
    group = tl.atomic_add(state, 0, sem="relaxed")
    if given_up | (group < 0):
        spoil_row(out, total, row, width, width, NORM, PARTS)
        return
    mine = load_row(x + row.to(tl.int64) * width, width, PARTS)
    before = mine
    if RESIDUAL:
        before = load_row(residual + row.to(tl.int64) * width, width, PARTS)
    count_call(uses + half, use, ticket, DEPENDENT)
    wanted = (use + 1).to(tl.int32)
    start = half * half_bytes.to(tl.int64) + row.to(tl.int64) * row_bytes
    own = wide_row(mine, PARTS)
    lost = 0
    for q in tl.static_range(WORLD):
        if q == RANK:
            one = own
        else:
            flag = _flags(peers, RANK, flags_at, half, q - (q > RANK), WORLD, FLAGS) + row // block_rows
            lost |= (_await_flag(flag, wanted, waiting) == 0).to(tl.int32)
            here = address(peers, RANK, slot(start, q - (q > RANK), slot_bytes), dtype)
            one = wide_row(load_row(here, width, PARTS), PARTS)
        if q == 0:
            summed = one
        else:
            summed = add_rows(summed, one, PARTS)
    gain = mine
    if NORM:
        gain = load_row(weight, width, PARTS)
    finish_row(summed, out, total, before, gain, row, width, width, eps, NORM, RESIDUAL, PARTS)
    tl.debug_barrier()  # every warp has stored what came of the row, so all of it was read
    for q in tl.static_range(WORLD):
        if q != RANK:
            flag = _flags(peers, RANK, flags_at, half, q - (q > RANK), WORLD, FLAGS) + row // block_rows
            lost |= (tl.atomic_add(flag, 0, sem="relaxed", scope="sys") != wanted).to(tl.int32)
    if lost != 0:
        give_up(waiting)
        give_up((error, state, looks))
        spoil_row(out, total, row, width, width, NORM, PARTS)


@triton.jit(do_not_specialize=["half"])
def turn_kernel(
    x,  # noqa: ARG001
    out,  # noqa: ARG001
    peers,
    state,
    half,
    flags_at,
    RANK: tl.constexpr,
    WORLD: tl.constexpr,
    FLAGS: tl.constexpr,
):
    """Ahead of a use of a half: its flags are other ones than those of the last, none if a row was given up. Grid: 1.

    All that was sent before is at its place by now, so that nothing overtakes what spoils it.
    """
    words = _words(peers, RANK, flags_at, half, WORLD, FLAGS) + tl.arange(0, FLAGS)
    tl.atomic_xor(words, tl.full([FLAGS], _TURN, tl.int32), sem="relaxed")
    if tl.atomic_add(state, 0, sem="relaxed") < 0:
        _spoil(peers, flags_at, RANK, WORLD, FLAGS)
