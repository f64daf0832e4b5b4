"""Runs on a rank: quantised sums composed of gloo's collectives and plain torch, held against float64."""

from __future__ import annotations

from typing import Any

import torch

from commplan.planner.strategy.layout import Parallelism
from commplan.runtime.backends import load_backend
from commplan.runtime.collectives.wire_sums import WireSum
from commplan.runtime.ranks.groups import Group, make_groups

from ...wire_cases import EPS, FORMATS, WireCase, wire_of

_groups: dict[int, Group] = {}


def group_of(ranks: int) -> Group:
    """The tp group of this world."""
    if ranks not in _groups:
        _groups[ranks] = make_groups(Parallelism(ranks), 60.0).tp
    return _groups[ranks]


def wire_sum(ranks: int, wire: str, group: str, width: int, algorithm: str, pieces: int = 1) -> WireSum:
    return WireSum(load_backend("gloo"), group_of(ranks), wire_of(wire, group), width, algorithm, pieces)


def excesses(ranks: int, algorithm: str, shapes: list[tuple[int, int]]) -> dict[str, tuple[float, float, list[bytes]]]:
    """By format and shape: how far off the sum is of what is allowed, the norm's error in epsilons, and the bits."""
    found = {}
    for number, (wire, group) in enumerate(FORMATS):
        for rows, width in shapes:
            case = WireCase((group_of(ranks).rank, ranks), rows, width, torch.bfloat16, 1000 * number + rows)
            summing = wire_sum(ranks, wire, group, width, algorithm, pieces=1 + number % 3)
            summed = summing.sum(case.mine)
            out = summing.sum_norm(case.mine, case.residual, case.weight, EPS)
            bits = [t.view(torch.int16).numpy().tobytes() for t in (summed, *out)]
            excess = case.excess(summed, wire_of(wire, group), algorithm)
            found[f"{wire} {group} {rows}x{width}"] = (excess, case.norm_error(out, summed), bits)
    return found


def in_pieces(ranks: int, algorithm: str, counts: tuple[int, ...]) -> list[tuple[list[tuple[int, int]], bytes]]:
    """(how the rows are cut, bits of the sum) for several numbers of pieces of the same rows."""
    case = WireCase((group_of(ranks).rank, ranks), 11, 96, torch.bfloat16, 5)
    found = []
    for count in counts:
        summing = wire_sum(ranks, "int6", "32", 96, algorithm, count)
        bits = summing.sum(case.mine).view(torch.int16).numpy().tobytes()
        found.append(([tuple(piece) for piece in summing.pieces_of(11)], bits))
    return found  # type: ignore[return-value]


def not_finite(ranks: int, algorithm: str, value: float) -> dict[str, bool]:
    """By format: does a value that is not finite spoil its group, all of it and nothing else?"""
    found = {}
    for wire, group in FORMATS:
        width = 600
        case = WireCase((group_of(ranks).rank, ranks), 4, width, torch.bfloat16, 3)
        x = case.mine.clone()
        if group_of(ranks).rank == ranks - 1:
            x[1, 300] = value
        out = wire_sum(ranks, wire, group, width, algorithm).sum(x)
        wanted = torch.ones(4, width, dtype=torch.bool)
        columns = width if group == "token" else int(group)
        first = 300 // columns * columns
        wanted[1, first : first + columns] = False
        found[f"{wire} {group}"] = torch.equal(torch.isfinite(out), wanted)
    return found


def next_to_nothing(ranks: int) -> dict[str, bool]:
    """By format: do subnormal values come out as zeros (spikes as they are), and rows beside them as they are?"""
    found = {}
    for wire, group in FORMATS:
        x = torch.full((2, 512), 1e-39, dtype=torch.bfloat16)
        x[1] = 2.0**-40
        out = wire_sum(ranks, wire, group, 512, "two_shot").sum(x)
        spikes = 2 * 512 // int(group) if wire == "int4_spikes" else 0
        close = (out[1].float() / (ranks * 2.0**-40) - 1).abs().max() < 0.1
        found[f"{wire} {group}"] = int((out[0] != 0).sum()) == spikes and bool(close)
    return found


def overwriting(ranks: int) -> list[Any]:
    """[is the new residual in the old one's memory, with the same bits as elsewhere, without a residual the sum]."""
    case = WireCase((group_of(ranks).rank, ranks), 5, 64, torch.bfloat16, 8)
    summing = wire_sum(ranks, "int8", "token", 64, "gather", 2)
    old = case.residual.clone()
    wanted = summing.sum_norm(case.mine, case.residual, case.weight, EPS)
    found = summing.sum_norm(case.mine, old, case.weight, EPS, overwrite=True)
    alone = summing.sum_norm(case.mine, None, case.weight, EPS)
    return [
        found[1].data_ptr() == old.data_ptr(),
        all(map(torch.equal, found, wanted)),
        torch.equal(alone[1], summing.sum(case.mine)),
        summing.sum(case.mine[:0]).shape == (0, 64),
    ]
