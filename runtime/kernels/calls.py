"""What every call of a collective needs: which half of a workspace it uses, where rows go, how long it waits. Device
functions only.

`state`, one int64 of a group on the device: its low 32 bits count the programs of the running call that have begun, bit
32 is the half, and the sign says that a row has been given up. One atomic tells a program all three, so nothing of it
can change between two reads, and every warp has the answer of the one thread that asked.

`waiting` = (error, state, looks): where it is said that a row never came, and how often a receiver looks for one.

From the first row that a rank gives up, no program of that group begins any more on that rank: it sends nothing, and
its results are NaN. It must not go on: its peer may be late rather than dead, so a row that comes now may be that of
an earlier call, and a row sent now may replace one that the peer has not read. Programs that had begun before end their
call, which is right as far as rows arrive: nobody sends rows of the call after the next before all have ended this one.
"""

from __future__ import annotations

import triton
import triton.language as tl

_HALF = tl.constexpr(1 << 32)
_GIVEN_UP = tl.constexpr(-(1 << 63))
_ROUNDS = tl.constexpr(1024)  # about half a millisecond


@triton.jit
def begin_call(state, error, looks, DEPENDENT: tl.constexpr):
    """(which half, ticket, whether a row was given up before, waiting). Kept on the device, so that graphs replay.

    No row is touched before this: with dependent launch the kernel before may still run.
    """
    if DEPENDENT != "off":
        tl.extra.cuda.gdc_wait()
    word = tl.atomic_add(state, 1, sem="relaxed")
    return (word >> 32) & 1, word.to(tl.int32), word < 0, (error, state, looks)


@triton.jit
def count_call(state, half, ticket, DEPENDENT: tl.constexpr, BESIDES: tl.constexpr = 0):
    """The last program to begin ends the count, and the next call gets the other half. All rows are sent by now.

    BESIDES: programs that do something else, and do not begin.
    """
    programs = tl.num_programs(0) - BESIDES
    if ticket == programs - 1:
        tl.atomic_add(state, tl.where(half == 0, _HALF, -_HALF) - programs, sem="relaxed")
    if DEPENDENT == "early":
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def look_again(tried, waiting):
    """Looks so far, with one more; all there are if another program has given up. The same in every warp.

    One thread asks for the sign, and seldom. A load by each warp could tell them different things, and warps that leave
    a loop at different times do not meet at the barriers in it.
    """
    tried += 1
    if tried % _ROUNDS == 0:
        word = tl.atomic_add(waiting[1], 0, sem="relaxed")
        tried = tl.where(word < 0, waiting[2], tried)
    return tried


@triton.jit
def give_up(waiting):
    """A row has not come."""
    tl.store(waiting[0], 1)
    tl.atomic_or(waiting[1], _GIVEN_UP, sem="relaxed")


@triton.jit
def slot(start, number: tl.constexpr, slot_bytes):
    """Where a slot begins, in bytes. In 64 bits: the slots of a long prefill on eight ranks are more than 2 GiB."""
    return start + slot_bytes.to(tl.int64) * number


@triton.jit
def address(peers, rank, offset, dtype: tl.constexpr):
    """Pointer to an offset in bytes, a multiple of 16, in the workspace of a rank."""
    base = (tl.load(peers + rank) + offset).to(tl.pointer_type(dtype))
    return tl.multiple_of(base, 16)
