"""What runs on each rank: quantised sums around NCCL, and their kernels against plain torch on the host."""

from __future__ import annotations

import torch
import torch.distributed as dist

from commplan.runtime.backends import load_backend
from commplan.runtime.collectives.wire_sums import WireSum
from commplan.runtime.kernels.wire.layout import RowLayout
from commplan.runtime.kernels.wire.plain import WireRows
from commplan.runtime.ranks.groups import Group

from ..peer_cases import poison, rows_of
from ..wire_cases import EPS, FORMATS, WireCase, wire_of
from .ranks import DTYPES, start

WIDTHS = (5120, 1000)


def wire_sum(wire: str, group: str, width: int, algorithm: str, pieces: int = 1) -> WireSum:
    rank, world = dist.get_rank(), dist.get_world_size()
    tp = Group("tp", dist.group.WORLD, world, rank)
    return WireSum(load_backend("nccl"), tp, wire_of(wire, group), width, algorithm, pieces)


def sums(algorithm: str, dtype_name: str) -> dict[str, tuple[float, float, bool]]:
    """By format: how far off of what is allowed, the norm's error in epsilons, whether all ranks hold the same bits."""
    rank, world, _ = start()
    found = {}
    for number, (wire, group) in enumerate(FORMATS):
        width = WIDTHS[number % 2]
        for rows in (1, 333):
            case = WireCase((rank, world), rows, width, DTYPES[dtype_name][0], 100 * number, "cuda")
            summing = wire_sum(wire, group, width, algorithm, 1 + number % 4)
            poison(rows * width, torch.bfloat16)
            summed = summing.sum(case.mine)
            out = summing.sum_norm(case.mine, case.residual, case.weight, EPS)
            same = True
            for each in (summed, *out):
                first = each.clone()
                dist.broadcast(first, 0)
                same &= torch.equal(first, each)
            excess = case.excess(summed, wire_of(wire, group), algorithm)
            found[f"{wire} {group} {rows}x{width}"] = (excess, case.norm_error(out, summed), same)
    return found


def bits() -> dict[str, bool]:
    """By format, on one GPU: do the kernels make the records and sums that plain torch makes on the host?"""
    kernels = load_backend("nccl")
    found = {}
    for number, (wire, group) in enumerate(FORMATS):
        width, dtype = WIDTHS[number % 2], (torch.bfloat16, torch.float16)[number % 3 % 2]
        layout = RowLayout.of(wire_of(wire, group), width)
        case = WireCase((0, 2), 40, width, dtype, number)
        used = layout.scales_at + layout.groups * layout.group_bytes
        sides = []
        for rows, device in ((kernels.wire_rows(layout), "cuda"), (WireRows(layout), "cpu")):
            got = torch.full((2, 42, layout.row_bytes), 77, dtype=torch.int8, device=device)
            again = torch.full_like(got[0], 77)
            for part, out in zip(case.parts, got, strict=True):
                rows.quantize(part.to(device), out)
            rows.reduce(got, again)
            summed = torch.full((40, width), float("nan"), dtype=dtype, device=device)
            rows.sum(got, summed)
            sides.append([got[..., :used].cpu(), again[:, :used].cpu(), summed.cpu()])
        found[f"{wire} {group}"] = all(map(torch.equal, *sides))
    return found


def not_finite(value: float) -> dict[str, bool]:
    """By format: does a value that is not finite spoil its group, all of it and nothing else?"""
    rank, world, _ = start()
    found = {}
    for wire, group in FORMATS:
        case = WireCase((rank, world), 4, 5120, torch.bfloat16, 3, "cuda")
        x = case.mine.clone()
        if rank == world - 1:
            x[1, 700] = value
        out = wire_sum(wire, group, 5120, "two_shot").sum(x)
        columns = 5120 if group == "token" else int(group)
        wanted = torch.ones(4, 5120, dtype=torch.bool, device="cuda")
        wanted[1, 700 // columns * columns :][:columns] = False
        found[f"{wire} {group}"] = torch.equal(torch.isfinite(out), wanted)
    return found


def graphs(replays: int) -> int:
    """Wrong results of a graph of sums in pieces, replayed with new inputs."""
    rank = start()[0]
    width, rows = 5120, 301
    weight = rows_of(5, 1, width, torch.bfloat16)[0]
    x, residual = (torch.zeros(rows, width, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    summing = [wire_sum("int4_spikes", "64", width, "gather", 3), wire_sum("int8", "token", width, "two_shot", 2)]

    def calls() -> list[torch.Tensor]:
        first, total = summing[0].sum_norm(x, residual, weight, EPS)
        return [first, total, summing[1].sum(first)]

    calls()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = calls()
    wrong = 0
    for replay in range(replays):
        x.copy_(rows_of(10 * replay + rank, rows, width, torch.bfloat16))
        residual.copy_(rows_of(10 * replay + 9, rows, width, torch.bfloat16))
        graph.replay()
        wrong += not all(map(torch.equal, found, calls()))
    return wrong
