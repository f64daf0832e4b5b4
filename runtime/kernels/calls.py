"""What every call of a collective needs: its number, where rows go, and how long it waits. Device functions only.

`state`, int64 on the device: [calls so far, programs of this call that have read that, what a look costs beside itself]

`waiting` = (error, state, looks): where it is said that a row never came, and how often a receiver looks for one. Once
a row has been given up, a look costs all looks there are: every receiver that waits stops, and so does all that was
launched behind it. The price is read beside each look, so that it takes no time of its own.
"""

from __future__ import annotations

import triton
import triton.language as tl

STATE_LENGTH = 3
_ALL_LOOKS = tl.constexpr(1 << 30)


@triton.jit
def begin_call(state, error, looks):
    """(number of this call, ticket, waiting). The parity of the number picks the half of the workspace.

    The number is kept on the device, so that graphs replay. The ticket is drawn only after the number has been read:
    what is added depends on it.
    """
    call = tl.load(state, volatile=True)
    ticket = tl.atomic_add(state + 1, tl.where(call >= 0, 1, 2).to(tl.int64), sem="relaxed")
    return call, ticket, (error, state, looks)


@triton.jit
def count_call(state, call, ticket):
    """The last program to read the number of the call counts it."""
    if ticket == tl.num_programs(0) - 1:
        tl.store(state + 1, 0)
        tl.store(state, call + 1)


@triton.jit
def look_again(tried, waiting):
    """Looks so far, with one more."""
    return tried + 1 + tl.load(waiting[1] + 2, volatile=True).to(tl.int32)


@triton.jit
def give_up(waiting):
    """A row has not come."""
    tl.store(waiting[0], 1)
    tl.store(waiting[1] + 2, _ALL_LOOKS)


@triton.jit
def slot(start, number: tl.constexpr, slot_bytes):
    """Where a slot begins, in bytes. In 64 bits: the slots of a long prefill on eight ranks are more than 2 GiB."""
    return start + slot_bytes.to(tl.int64) * number


@triton.jit
def address(peers, rank, offset, dtype: tl.constexpr):
    """Pointer to an offset in bytes, a multiple of 16, in the workspace of a rank."""
    base = (tl.load(peers + rank) + offset).to(tl.pointer_type(dtype))
    return tl.multiple_of(base, 16)
