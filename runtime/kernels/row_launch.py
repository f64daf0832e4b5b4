"""What a row kernel is launched with: how a row is cut, how many warps a program has, which part of the workspace."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import triton

from ..errors import RefusedError
from .read_ahead import Ahead
from .room import row_bytes
from .symmetric import Workspace
from .wire.layout import RowLayout

Parts = tuple[tuple[int, int], ...]
Dependence = Literal["off", "wait", "early"]
"""Programmatic dependent launch: a kernel starts when the one before has ended; it starts sooner and waits for that
itself; it also lets the next one start once its rows are sent."""


class Tuning(NamedTuple):
    """What was found by measuring, and may be measured again; the same on all ranks of a group."""

    piece: int = 1024
    """Elements of a piece, where rows mean nothing and few rows are cut into more programs."""
    most_pieces: int = 1024
    """More of them cost more than they save."""
    few: int = 264
    """Programs; two for each multiprocessor of a Hopper GPU. Up to here latency is all."""
    warps: int | None = None
    """Of a program of few, where `warps_of` does not say it."""
    part: int | None = None
    """Elements of a part of a row of few, where no cut of ours says it."""
    even: bool | None = None
    """Whether a row of few is cut evenly; None: where it is quantised."""
    registers: int | None = None
    """The most that a thread of many programs may have, 0: as many as the compiler likes; None: by `registers_of`."""


class Cut(NamedTuple):
    """How a row lies in a program: its warps, and (first column, size) of each tensor that holds some of it."""

    warps: int
    parts: Parts


class Launch(NamedTuple):
    """A kernel with all that it is launched with but memory: one program a row, and those that do something else.

    `arrays`: how many a call brings, 2 or 5; `numbers` and `constants` follow in the order of the kernel's parameters.
    """

    kernel: Any
    arrays: int
    programs: int
    numbers: tuple[Any, ...]
    constants: dict[str, Any]
    options: dict[str, Any]


def plan_launch(
    kernel: Any,
    space: Workspace,
    programs: int,
    slots: int,
    numbers: tuple[int, ...],
    *,
    width: int,
    looks: int,
    dependent: Dependence,
    tuning: Tuning,
    arrays: int = 5,
    ahead: Ahead | None = None,
    layout: RowLayout | None = None,
    eps: tuple[float, ...] = (),
    counts_threads: bool = False,
    **flags: Any,
) -> Launch:
    """A kernel of one program a row. A half of the workspace is cut into `slots` of `programs` rows.

    `ahead`: for a kernel that is told what to ask for, by programs behind those; `counts_threads`: for one that is told
    how many threads a program has.
    """
    quantized, packed = layout is not None, layout is not None and layout.bits < 8
    few = programs <= tuning.few and not packed  # what saves few rows time compiles for a minute around packed words
    group = 0 if layout is None or layout.is_token else layout.columns
    one, (warps, parts) = row_bytes(width, layout), cut_of(width, few, quantized, tuning, group)
    threads = {"THREADS": 32 * warps} if counts_threads or "LAYOUT" in flags else {}
    besides = 0
    if ahead is not None:
        besides = flags["AHEAD"] = ahead.programs(32 * warps)
        numbers = *ahead, *numbers
    registers = registers_of(width, warps, quantized, bool(flags.get("NORM")))
    if tuning.registers is not None:
        registers = tuning.registers or None
    if slots * programs * one > space.half_bytes:
        raise RefusedError(
            f"takes {slots * programs * one} bytes of a workspace of {space.half_bytes}; it was made for fewer rows",
            field="rows",
            value=programs,
        )
    return Launch(
        kernel,
        arrays,
        programs + besides,
        (*numbers, width, *eps, one, programs * one, space.half_bytes, looks),
        {"PARTS": parts, "FEW": few, "DEPENDENT": dependent, **threads, **flags},
        launch_options(warps, None if few else registers, dependent),
    )


def launch_options(warps: int, registers: int | None, dependent: Dependence) -> dict[str, Any]:
    """What Triton is told of a kernel of rows besides its constants."""
    return {
        "num_warps": warps,
        "maxnreg": registers,
        # Every rank compiles its own; a product fused into a sum on one and not on another would differ.
        "enable_fp_fusion": False,
        "launch_pdl": dependent != "off",
    }


def cut_of(width: int, few: bool, quantized: bool, tuning: Tuning, group: int = 0) -> Cut:
    """A row of few that is quantised is cut evenly, so that a reduction of it is one; others into what wastes least.

    `group`: columns that share a scale lie in one part; 0: all of the row.
    """
    warps = (few and tuning.warps) or warps_of(width, few, quantized)
    if few and tuning.part:
        return Cut(warps, tuple((first, tuning.part) for first in range(0, width, tuning.part)))
    even = quantized if tuning.even is None else tuning.even
    if few and even:
        return Cut(warps, even_parts(width, 32 * warps, group))
    return Cut(warps, parts_of(width, max(32 * warps, group)))


def even_parts(width: int, threads: int, group: int = 0) -> Parts:
    """Parts of one size, of 4 or 8 elements a thread, whichever reaches less far beyond the row; of whole groups."""
    least = max(threads, triton.next_power_of_2(width))
    size = min((8 * threads, 4 * threads), key=lambda one: (-(-width // one) * one, -one))
    size = max(min(size, least), group)
    return tuple((first, size) for first in range(0, width, size))


def parts_of(width: int, least: int) -> Parts:
    """(first column, size) of the powers of two that hold a row. At most three, so the last may reach beyond.

    `least`: none is smaller than a program has threads, since a reduction is over what every warp has seen only if each
    has a column, nor than a group of columns that share a scale.
    """
    found: list[tuple[int, int]] = []
    first = 0
    while first < width:
        rest = width - first
        size = 1 << (rest.bit_length() - 1)
        if len(found) == 2 or size < least:
            size = max(triton.next_power_of_2(rest), least)
        found.append((first, size))
        first += size
    return tuple(found)


def warps_of(width: int, few: bool, quantized: bool) -> int:
    """Warps of a program. With many rows in INT8, a multiprocessor is filled with rows rather than with warps."""
    most = 40 if quantized and not few else 28  # elements of a thread
    warps = 4
    while width > most * 32 * warps and warps < 16:
        warps *= 2
    return warps


def registers_of(width: int, warps: int, quantized: bool, normed: bool) -> int | None:
    """The most registers a thread of many programs may have, None for as many as the compiler likes.

    It is how many programs are on a multiprocessor that covers the wait of one; three or four registers
    more can cost a quarter of them. Where the bound is too tight the compiler spills one or two to memory, which was
    measured to cost less. Bounds are for the columns that a thread holds; none helps a row in INT8 with its norm.
    """
    if quantized and normed:
        return None
    columns = width / (32 * warps)
    if quantized:
        return 64 if columns <= 28 else 80 if columns <= 40 else None
    return 64 if columns <= 20 else 80 if columns <= 28 else None


def in_pieces(rows: int, width: int, tuning: Tuning) -> tuple[int, int]:
    """A few rows in pieces where that goes evenly: where a row means nothing, more programs are quicker."""
    few = rows * width <= tuning.piece * tuning.most_pieces and width % tuning.piece == 0
    return (rows * width // tuning.piece, tuning.piece) if few else (rows, width)
