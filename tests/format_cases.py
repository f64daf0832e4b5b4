"""What a quantised sum in any format must come to, on GPUs and emulated: errors against float64, and rows that are not
ordinary. Every rank can make the rows of all."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .peer_cases import EPS, Case, error, normed, poison, rows_of

How = tuple[str, str, str]
"""(algorithm, wire, group)."""
OF_ONE = {"int8": 0.0090, "fp8_e4m3": 0.0270, "int6": 0.0390, "int4": 0.1700, "int4_spikes": 0.1450}
"""Relative RMS error of quantising normal rows once, by format, of the largest group; more than any seed gives."""


def bound_of(how: How) -> float:
    """Above the error of a sum: two shots quantise twice."""
    algorithm, wire, _ = how
    return OF_ONE[wire] * (1.5 if algorithm == "two_shot" else 1.06) + 2.0**-8


def errors_of(peers: Any, case: Case, how: How) -> tuple[float, tuple[Tensor, ...]]:
    """(the largest error of the norm and of the sum, the new residual where there was none; both)."""
    poison(case.mine.numel(), case.mine.dtype)
    norm, total = peers.quantized_all_reduce_norm(case.mine, *how, None, case.weight, EPS)
    return max(error(norm, normed(case.sum, case.weight)), error(total, case.sum)), (norm, total)


def one_channel(
    peers: Any, ranks: tuple[int, int], rows: int, width: int, how: How, device: str, factor: float = 300.0
) -> tuple[float, float]:
    """Relative errors outside and inside of the group of a column whose values are `factor` times the others'."""
    rank, world = ranks
    parts = [rows_of(400 + r, rows, width, torch.bfloat16, device=device) for r in range(world)]
    group = int(how[2])
    at = width // 2 // group * group + group // 3
    for part in parts:
        part[:, at] *= factor
    found = peers.quantized_all_reduce(parts[rank], *how)
    wanted = torch.stack([part.double() for part in parts]).sum(0)
    inside = torch.arange(width, device=device) // group == at // group
    return error(found[:, ~inside], wanted[:, ~inside]), error(found[:, inside], wanted[:, inside])


def not_finite(peers: Any, ranks: tuple[int, int], width: int, how: How, value: float, device: str) -> list[str]:
    """What is wrong where each rank has one value that is not finite, in a row of its own: it spoils its group of that
    row, all of it, and nothing else."""
    rank, world = ranks
    rows, group, at = world + 2, int(how[2]), width - 3
    case = Case(ranks, rows, width, torch.bfloat16, "normal", 5, device)
    x = case.mine.clone()
    x[1 + rank, at] = value
    found = peers.quantized_all_reduce(x, *how)
    spoilt = torch.zeros(rows, width, dtype=torch.bool, device=device)
    spoilt[1 : 1 + world, at // group * group : (at // group + 1) * group] = True
    wrong = []
    if bool(torch.isfinite(found[spoilt]).any()):
        wrong.append("something finite came out of a spoilt group")
    if error(found[~spoilt], case.sum[~spoilt]) > bound_of(how):
        wrong.append("another group is not right")
    norm, total = peers.quantized_all_reduce_norm(x, *how, case.residual, case.weight, EPS)
    if bool(torch.isfinite(norm[1 : 1 + world]).any()) or not bool(torch.isfinite(norm[[0, -1]]).all()):
        wrong.append("a norm is of its whole row, and of no other")
    if bool((torch.isfinite(total) == spoilt).any()):
        wrong.append("the new residual is spoilt where the sum is")
    return wrong


def next_to_nothing(peers: Any, ranks: tuple[int, int], width: int, how: How, device: str) -> list[str]:
    """What is wrong with rows of zeros, of subnormal numbers, of one column, and of a value in the last one alone."""
    x = torch.zeros(6, width, dtype=torch.bfloat16, device=device)
    x[1] = 1e-39
    x[2] = -1e-37
    x[3, 0], x[4, -1] = 3.0, -5.0
    x[5, :] = -0.0
    found = peers.quantized_all_reduce(x, *how).double()
    wanted = torch.zeros_like(found)
    wanted[3, 0], wanted[4, -1] = 3.0 * ranks[1], -5.0 * ranks[1]
    near = (found - wanted).abs() <= 0.02 * wanted.abs() + 1e-36  # spikes of such a group travel as they are
    return [] if bool(near.all()) else [f"row {row}" for row in (~near).any(1).nonzero().flatten().tolist()]
