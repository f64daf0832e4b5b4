"""Kernels of composed sums without GPUs: Triton's interpreter in a process of its own, beside plain torch."""

from __future__ import annotations

import os

import torch

from ...wire_cases import EPS, WireCase, wire_of

Formats = tuple[tuple[str, str], ...]
"""(wire, group) of each."""


Found = tuple[dict[str, tuple[bool, float, float]], dict[str, tuple[bool, bool]], tuple[bool, bool, bool]]


def found(formats: Formats, width: int, seed: int) -> Found:
    """What both functions below give, and how FP8 is rounded."""
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    torch.set_num_threads(1)
    from .emulated_e4m3 import rounding

    return beside_plain_torch(formats, width, seed), spoiled(formats), rounding(seed)


def beside_plain_torch(formats: Formats, width: int, seed: int) -> dict[str, tuple[bool, float, float]]:
    """By format: (are records and sums the same to the bit, how far off float64 is the sum, and the norm).

    In fp16: the interpreter rounds to bf16 otherwise than any device.
    """
    from commplan.runtime.kernels.wire.launch import WireKernels
    from commplan.runtime.kernels.wire.layout import RowLayout
    from commplan.runtime.kernels.wire.plain import WireRows

    found = {}
    for number, (wire, group) in enumerate(formats):
        layout = RowLayout.of(wire_of(wire, group), width)
        case = WireCase((0, 2), 4, width, torch.float16, seed + number)
        used = layout.scales_at + layout.groups * layout.group_bytes
        sides = []
        for rows in (WireKernels(layout), WireRows(layout)):
            got = torch.full((2, 5, layout.row_bytes), 77, dtype=torch.int8)
            again = torch.full_like(got[0], 77)
            for part, out in zip(case.parts, got, strict=True):
                rows.quantize(part, out)
            rows.reduce(got, again)
            summed, normed, total = (torch.full((4, width), float("nan"), dtype=torch.float16) for _ in range(3))
            rows.sum(got, summed)
            rows.sum_norm(got, case.residual, case.weight, EPS, normed, total)
            sides.append((got[..., :used], again[:, :used], summed, total, normed))
        (*ours, normed), (*others, _) = sides
        norm_error = case.norm_error((normed, ours[3]), ours[2])
        excess = case.excess(ours[2], wire_of(wire, group), "gather")
        found[f"{wire} {group}"] = (all(map(torch.equal, ours, others)), excess, norm_error)
    return found


def spoiled(formats: Formats) -> dict[str, tuple[bool, bool]]:
    """By format: (does NaN or an infinity spoil its group and no other, are subnormal values nothing)."""
    from commplan.runtime.kernels.wire.launch import WireKernels
    from commplan.runtime.kernels.wire.layout import RowLayout

    found = {}
    for wire, group in formats:
        layout = RowLayout.of(wire_of(wire, group), 256)
        rows, columns = WireKernels(layout), 256 if group == "token" else int(group)
        x = torch.linspace(-1.0, 1.0, 4 * 256).view(4, 256)
        for row, value in enumerate((float("nan"), float("inf"), float("-inf"))):
            x[row, 100] = value
        x[3] = 1e-39
        got, out = torch.zeros(1, 4, layout.row_bytes, dtype=torch.int8), torch.zeros(4, 256)
        rows.quantize(x, got[0])
        rows.sum(got, out)
        wanted = torch.ones(4, 256, dtype=torch.bool)
        wanted[:3, 100 // columns * columns :][:, :columns] = False
        kept = 2 * 256 // columns if wire == "int4_spikes" else 0
        found[f"{wire} {group}"] = (torch.equal(torch.isfinite(out), wanted), int((out[3] != 0).sum()) == kept)
    return found
