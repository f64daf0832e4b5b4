"""The kernel that sums rows as they are, without GPUs: Triton's interpreter on every rank."""

from __future__ import annotations

import torch

from ...peer_cases import EPS, Case
from ...wire_cases import WireCase
from .emulated_peers import emulated

WIDTHS = (1, 97, 200, 1040, 2052)
"""Of a part smaller than a program has threads, odd ones, and of several parts."""


def beside_float64(folder: str) -> dict[int, tuple[bool, float]]:
    """By width: (are sums plain torch's to the bit, how far off is the norm, in epsilons).

    In fp16: the interpreter rounds to bf16 otherwise than any device.
    """
    rank, world, _ = emulated(folder)
    from commplan.runtime.kernels.wire.row_sum_launch import RowSumKernels
    from commplan.runtime.kernels.wire.row_sums import GatheredRows, RowSums

    found = {}
    for width in WIDTHS:
        case = WireCase((rank, world), 3, width, torch.float16, width)
        got = torch.stack(case.parts)
        got[rank] = float("nan")
        rows, sides = GatheredRows(case.mine, got), []
        for sums in (RowSumKernels(rank), RowSums(rank)):
            summed, normed, total = (torch.full_like(case.mine, float("nan")) for _ in range(3))
            sums.sum(rows, summed)
            sums.sum_norm(rows, case.residual, case.weight, EPS, normed, total)
            sides.append((summed, total, normed))
        (*ours, normed), (*others, _) = sides
        near = (ours[0].double() - case.sum).abs() <= torch.finfo(torch.float16).eps * case.sum.abs() + 1e-4
        same = all(map(torch.equal, ours, others)) and bool(near.all())
        found[width] = (same, case.norm_error((normed, ours[1]), ours[0]))
    return found


def beside_one_shot(folder: str, width: int) -> list[bool]:
    """By type: is what the kernel makes, with and without a norm, what `all_reduce` makes in one shot, to the bit?"""
    rank, world, peers = emulated(folder)
    from commplan.runtime.kernels.wire.row_sum_launch import RowSumKernels
    from commplan.runtime.kernels.wire.row_sums import GatheredRows

    found = []
    for dtype in (torch.bfloat16, torch.float16):
        case = Case((rank, world), 4, width, dtype, "outliers", 7, "cpu")
        rows, sums = GatheredRows(case.mine, torch.stack(case.parts)), RowSumKernels(rank)
        summed = torch.empty_like(case.mine)
        sums.sum(rows, summed)
        same = torch.equal(summed, peers.all_reduce(case.mine, "one_shot"))
        for residual in (case.residual, None):
            out, total = torch.empty_like(summed), torch.empty_like(summed)
            sums.sum_norm(rows, residual, case.weight, EPS, out, total)
            wanted = peers.all_reduce_norm(case.mine, residual, case.weight, EPS, "one_shot")
            same &= all(map(torch.equal, (out, total), wanted))
        found.append(same)
    return found
