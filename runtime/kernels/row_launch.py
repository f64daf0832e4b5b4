"""Launching a row kernel: how a row is cut, how many warps a program has, which part of the workspace it uses."""

from __future__ import annotations

from typing import Any

import triton
from torch import Tensor

from ..errors import RefusedError
from .room import row_bytes
from .symmetric import Workspace

_PIECE = 1024
_MOST_PIECES = 1024  # more of them cost more than they save
_FEW_PROGRAMS = 264  # two for each multiprocessor of a Hopper GPU


def launch(
    kernel: Any,
    space: Workspace,
    programs: int,
    slots: int,
    arrays: tuple[Tensor, ...],
    numbers: tuple[Any, ...],
    *,
    width: int,
    state: Tensor,
    error: Tensor,
    looks: int,
    quantized: bool = False,
    eps: tuple[float, ...] = (),
    **flags: Any,
) -> None:
    """Run a kernel of one program a row. A half of the workspace is cut into `slots` of `programs` rows."""
    if programs == 0:
        return
    one, warps = row_bytes(width, quantized), warps_of(width, programs, quantized)
    if slots * programs * one > space.half_bytes:
        raise RefusedError(
            f"takes {slots * programs * one} bytes of a workspace of {space.half_bytes}; it was made for fewer rows",
            field="rows",
            value=programs,
        )
    kernel[(programs,)](
        *arrays,
        space.peers,
        state,
        error,
        *numbers,
        width,
        *eps,
        one,
        programs * one,
        space.half_bytes,
        looks,
        PARTS=parts_of(width, 32 * warps),
        FEW=programs <= _FEW_PROGRAMS,
        num_warps=warps,
        maxnreg=registers_of(width, warps, programs, quantized, bool(flags.get("NORM"))),
        # Every rank compiles a kernel of its own; a product fused into a sum in one and not in another would differ.
        enable_fp_fusion=False,
        **flags,
    )


def parts_of(width: int, threads: int) -> tuple[tuple[int, int], ...]:
    """(first column, size) of the powers of two that hold a row. At most three, so the last may reach beyond.

    None is smaller than a program has threads: a reduction is over what every warp has seen only if each has a column.
    """
    found: list[tuple[int, int]] = []
    first = 0
    while first < width:
        rest = width - first
        size = 1 << (rest.bit_length() - 1)
        if len(found) == 2 or size < threads:
            size = max(triton.next_power_of_2(rest), threads)
        found.append((first, size))
        first += size
    return tuple(found)


def warps_of(width: int, programs: int, quantized: bool) -> int:
    """Warps of a program. With many rows in INT8, a multiprocessor is filled with rows rather than with warps."""
    most = 40 if quantized and programs > _FEW_PROGRAMS else 28  # elements of a thread
    warps = 4
    while width > most * 32 * warps and warps < 16:
        warps *= 2
    return warps


def registers_of(width: int, warps: int, programs: int, quantized: bool, normed: bool) -> int | None:
    """The most registers a thread may have, None for as many as the compiler likes.

    With many rows it is how many programs are on a multiprocessor that covers the wait of one; three or four registers
    more can cost a quarter of them. Where the bound is too tight the compiler spills one or two to memory, which was
    measured to cost less. Bounds are for the columns that a thread holds; none helps a row in INT8 with its norm.
    """
    if programs <= _FEW_PROGRAMS or (quantized and normed):
        return None
    columns = width / (32 * warps)
    if quantized:
        return 64 if columns <= 28 else 80 if columns <= 40 else None
    return 64 if columns <= 20 else 80 if columns <= 28 else None


def flattened(x: Tensor) -> Tensor:
    """A few rows in pieces of 1024 where that goes evenly: where a row means nothing, more programs are quicker."""
    few = x.numel() <= _PIECE * _MOST_PIECES and x.shape[1] % _PIECE == 0
    return x.view(-1, _PIECE) if few else x
