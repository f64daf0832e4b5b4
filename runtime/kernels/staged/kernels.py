"""Kernels beside copies through host memory, of one warp each. Flags are those of page.py.

`pages`: int64 [N], address of every rank's page, in host memory that the device reaches; `words`: int64 [3] on the
device, the uses of both halves so far, then whether this rank has given up; `error`: int32 [1] in host memory.

A flag is looked at over PCIe, about a microsecond each time, and every warp that looks reads it there by itself: a look
of 256 warps took 250 us on an H200. What is stored there is told behind a fence of the system: all that came before it
on the stream, copies too, is seen by whoever sees the flag.
"""

from __future__ import annotations

import triton
import triton.language as tl

from . import page
from .fences import fence

_PIECES = tl.constexpr(page.PIECES)
_STRIDE = tl.constexpr(page.STRIDE)
_READ_AT = tl.constexpr(page.READ_AT)
_FLAGS = tl.constexpr(page.FLAGS)
_LINES = tl.constexpr(32)  # a power of two that holds all flags
_GIVEN_UP = tl.constexpr(page.GIVEN_UP)
_GIVEN_UP_AT = tl.constexpr(page.GIVEN_UP_AT)


@triton.jit
def _page(pages, rank):
    """Pointer to the page of a rank."""
    return tl.load(pages + rank).to(tl.pointer_type(tl.int64))


@triton.jit
def _told(pages, rank, half, piece):
    """Pointer to the flag of a piece."""
    return _page(pages, rank) + (half * _PIECES + piece) * _STRIDE


@triton.jit
def _lost(words):
    """Has this rank given up? Another stream may say so at any time."""
    return tl.load(words + _GIVEN_UP_AT, volatile=True) != 0


@triton.jit
def _await(flag, wanted, words, looks):
    """What a flag says that has come to be `wanted` or more; less where its rank or this one has given up."""
    tried = 0
    seen = tl.load(flag, volatile=True)
    while (seen < wanted) & (tried < looks):
        tried = tl.where((seen == _GIVEN_UP) | _lost(words), looks, tried + 1)
        seen = tl.load(flag, volatile=True)
    return seen


@triton.jit
def _give_up(pages, words, error, RANK: tl.constexpr):
    """Nothing of this rank counts any more: neither what it told nor what it has read."""
    lines = tl.arange(0, _LINES)
    tl.store(words + _GIVEN_UP_AT, 1)
    tl.store(error, 1)
    tl.store(_page(pages, RANK) + lines * _STRIDE, tl.full([_LINES], _GIVEN_UP, tl.int64), mask=lines < _FLAGS)
    fence()


@triton.jit(do_not_specialize=["half", "looks"])
def await_read_kernel(
    x,  # noqa: ARG001
    out,  # noqa: ARG001
    pages,
    words,
    error,
    half,
    looks,
    RANK: tl.constexpr,
    WORLD: tl.constexpr,
):
    """Ahead of a use of a half: all peers have read what the last one brought. Grid: 1.

    A copy behind this cannot be held back: before it overwrites what a peer has not read, that no longer counts.
    """
    lost = _lost(words)
    uses = tl.load(words + half)
    for q in tl.static_range(WORLD):
        if q != RANK:
            flag = _page(pages, q) + _READ_AT + half * _STRIDE
            lost |= _await(flag, uses, words, tl.where(lost, 0, looks)) < uses
    if lost:
        _give_up(pages, words, error, RANK)


@triton.jit(do_not_specialize=["half", "piece"])
def tell_kernel(
    x,  # noqa: ARG001
    out,  # noqa: ARG001
    pages,
    words,
    error,  # noqa: ARG001
    half,
    piece,
    RANK: tl.constexpr,
    WORLD: tl.constexpr,  # noqa: ARG001
):
    """Behind the copy of a piece to host memory: it is there. Grid: 1."""
    if not _lost(words):
        fence()
        tl.store(_told(pages, RANK, half, piece), tl.load(words + half) + 1)


@triton.jit(do_not_specialize=["half", "piece", "looks"])
def await_piece_kernel(
    x,  # noqa: ARG001
    out,  # noqa: ARG001
    pages,
    words,
    error,
    half,
    piece,
    looks,
    RANK: tl.constexpr,
    WORLD: tl.constexpr,
):
    """Ahead of the copies of a piece from host memory: all peers have brought theirs. Grid: 1."""
    lost = _lost(words)
    wanted = tl.load(words + half) + 1
    for q in tl.static_range(WORLD):
        if q != RANK:
            lost |= _await(_told(pages, q, half, piece), wanted, words, tl.where(lost, 0, looks)) != wanted
    if lost:
        _give_up(pages, words, error, RANK)


@triton.jit(do_not_specialize=["half", "piece", "size"])
def arrived_kernel(
    got,
    out,  # noqa: ARG001
    pages,
    words,
    error,
    half,
    piece,
    size,
    RANK: tl.constexpr,
    WORLD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Behind those copies: `got`, int8 [WORLD, size], is what the peers brought, or bytes of 0xFF. Grid: 1.

    A peer that gives up says so before it overwrites anything, so what was read while its flag stands is right.
    """
    lost = _lost(words)
    wanted = tl.load(words + half) + 1
    for q in tl.static_range(WORLD):
        if q != RANK:
            lost |= tl.load(_told(pages, q, half, piece), volatile=True) != wanted
    if lost:
        _give_up(pages, words, error, RANK)
        columns = tl.arange(0, BLOCK)
        for q in tl.static_range(WORLD):
            if q != RANK:
                place = got + q * size.to(tl.int64)
                first = tl.zeros([], tl.int64)
                while first < size:
                    tl.store(place + first + columns, tl.full([BLOCK], -1, tl.int8), mask=first + columns < size)
                    first += BLOCK


@triton.jit(do_not_specialize=["half"])
def finish_kernel(
    x,  # noqa: ARG001
    out,  # noqa: ARG001
    pages,
    words,
    error,  # noqa: ARG001
    half,
    RANK: tl.constexpr,
    WORLD: tl.constexpr,  # noqa: ARG001
):
    """Behind all copies of a use of a half: it is read, and counted. Grid: 1."""
    uses = tl.load(words + half) + 1
    if not _lost(words):
        fence()
        tl.store(_page(pages, RANK) + _READ_AT + half * _STRIDE, uses)
    tl.store(words + half, uses)
