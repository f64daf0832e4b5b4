"""What runs on each rank: sums whose messages copy engines carry through host memory."""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from commplan.runtime.backends import load_backend
from commplan.runtime.collectives.host_staging import HostStaging
from commplan.runtime.collectives.wire_sums import WireSum
from commplan.runtime.ranks.groups import Group

from ..late_peers import said_by
from ..peer_cases import EPS, Case, poison, rows_of
from ..wire_cases import FORMATS, WireCase, wire_of
from .ranks import peers_of, start, sum_of

WIDTH = 1024
MOST = 2048  # rows
IMPATIENT = 300_000  # looks: a few tenths of a second


def staging(rows: int = MOST, row_bytes: int = 3 * WIDTH) -> tuple[Group, HostStaging]:
    rank, world, device = start()
    group = Group("tp", dist.group.WORLD, world, rank)
    return group, HostStaging.make(group, device, rows * row_bytes)


def by(carrier: Any, group: Group, wire: str | None, scales: str, width: int, pieces: int = 1) -> WireSum:
    """In a format, or of rows as they are."""
    format_ = None if wire is None else wire_of(wire, scales)
    return WireSum(load_backend("nccl"), group, format_, width, "gather", pieces, carrier)


def same_on_all(*found: Tensor) -> bool:
    same = True
    for each in found:
        first = each.clone()
        dist.broadcast(first, 0)
        same &= torch.equal(first, each)
    return same


def sums() -> dict[str, tuple[float, float, bool]]:
    """By format: how far off of what is allowed, the norm's error in epsilons, whether all ranks hold the same bits."""
    group, carrier = staging(row_bytes=12_000)
    found = {}
    for number, (wire, scales) in enumerate(FORMATS):
        width, dtype = (5120, 1000)[number % 2], (torch.bfloat16, torch.float16)[number % 3 % 2]
        for rows in (1, 333, MOST):
            case = WireCase((group.rank, group.size), rows, width, dtype, 100 * number, "cuda")
            summing = by(carrier, group, wire, scales, width, (1, 2, 4, 8)[number % 4])
            poison(rows * width, torch.bfloat16)
            summed = summing.sum(case.mine)
            out = summing.sum_norm(case.mine, case.residual, case.weight, EPS)
            excess = case.excess(summed, wire_of(wire, scales), "gather")
            found[f"{wire} {scales} {rows}x{width}"] = (excess, case.norm_error(out, summed), same_on_all(summed, *out))
    carrier.check()
    carrier.close()
    return found


def rows_as_they_are() -> dict[str, tuple[bool, float, bool]]:
    """By type, rows and pieces: is the sum that in fp32 in the order of ranks to the bit, the norm's error in epsilons,
    whether all ranks hold the same bits."""
    group, carrier = staging(row_bytes=12_000)
    found = {}
    for dtype in (torch.bfloat16, torch.float16):
        for number, rows in enumerate((1, 7, 333, MOST)):
            for pieces in (1, 2, 4, 8):
                width = (5120, 1000, 97)[(number + pieces) % 3]
                case = WireCase((group.rank, group.size), rows, width, dtype, 100 * number, "cuda")
                summing = by(carrier, group, None, "", width, pieces)
                poison(rows * width * group.size, dtype)
                summed = summing.sum(case.mine)
                out = summing.sum_norm(case.mine, case.residual, case.weight, EPS)
                exact = torch.equal(summed, sum_of(case.parts).to(dtype))
                same = same_on_all(summed, *out)
                found[f"{dtype} {rows}x{width} {pieces}"] = exact, case.norm_error(out, summed), same
    carrier.check()
    carrier.close()
    return found


def beside_one_shot() -> dict[str, tuple[bool, float]]:
    """By type and rows: are sums and totals those of our own kernel in one shot to the bit, how far off is the norm."""
    group, carrier = staging(row_bytes=2 * 5120)
    found = {}
    for dtype in (torch.bfloat16, torch.float16):
        peers = peers_of(dtype, 5120, 512)
        for rows in (1, 64, 512):
            case = Case((group.rank, group.size), rows, 5120, dtype, "outliers", 7)
            summing = by(carrier, group, None, "", 5120, 2)
            out, total = summing.sum_norm(case.mine, case.residual, case.weight, EPS)
            wanted = peers.all_reduce_norm(case.mine, case.residual, case.weight, EPS, "one_shot")
            same = torch.equal(summing.sum(case.mine), peers.all_reduce(case.mine, "one_shot"))
            off = (out.double() - wanted[0].double()).abs().max() / wanted[0].double().abs().max()
            found[f"{dtype} {rows}"] = same and torch.equal(total, wanted[1]), float(off / torch.finfo(dtype).eps)
        peers.check()
        dist.barrier()
        peers.close()
    carrier.check()
    return found


class Exact:
    """Sums of small whole numbers, which INT8 carries as they are, and how often one was not right. Every call has
    other numbers, and every row of it. Without `wire` rows in bf16 travel as they are."""

    def __init__(self, group: Group, carrier: HostStaging, wire: str | None = "int8") -> None:
        self.group, self.wrong = group, torch.zeros(1, dtype=torch.int64, device="cuda")
        self.dtype = torch.bfloat16 if wire is None else torch.float32
        self.sums = {pieces: by(carrier, group, wire, "token", WIDTH, pieces) for pieces in (1, 2, 4, 8)}
        self.number = torch.zeros(1, dtype=torch.int64, device="cuda")

    def rows(self, rank: int, rows: int) -> Tensor:
        """127 in every row, so that the scale is one; the rest differ by rank, call and row."""
        at = torch.arange(rows, device="cuda")[:, None] * 31 + torch.arange(WIDTH, device="cuda")[None, :] * 7
        found = (at + 41 * rank + 13 * self.number) % 255 - 127
        found[:, 0] = 127
        return found.to(self.dtype)

    def wanted(self, rows: int) -> Tensor:
        return sum_of([self.rows(rank, rows) for rank in range(self.group.size)]).to(self.dtype)

    def __call__(self, rows: int, pieces: int) -> None:
        found = self.sums[pieces].sum(self.rows(self.group.rank, rows))
        self.wrong += (found != self.wanted(rows)).any()  # NaN is never the same
        self.number += 1


def calls(count: int, seed: int = 1) -> int:
    """Wrong sums of calls of random sizes and pieces, by ranks that are late at random."""
    group, carrier = staging()
    exact, alike, late = Exact(group, carrier), random.Random(seed), random.Random(f"{seed} {group.rank}")
    for _ in range(count):
        if late.random() < 0.3:
            torch.cuda._sleep(late.randrange(400_000))
        exact(alike.choice([1, 7, 64, 333, 1024, MOST]), alike.choice([1, 2, 4, 8]))
    torch.cuda.synchronize()
    carrier.check()
    return int(exact.wrong.item())


def graphs(replays: int, wire: str | None) -> int:
    """Wrong sums of graphs with odd numbers of calls, replayed in an order that uses halves twice in a row, in turn
    with calls outside, by ranks that are late at random."""
    group, carrier = staging()
    exact, alike, late = Exact(group, carrier, wire), random.Random(5), random.Random(group.rank)
    runs = [[(333, 2), (64, 1), (MOST, 4)], [(1024, 8)], [(1, 1), (MOST, 2)]]
    for run in runs:
        for each in run:
            exact(*each)
    torch.cuda.synchronize()
    captured = []
    for run in runs:
        captured.append(torch.cuda.CUDAGraph())
        with torch.cuda.graph(captured[-1]):
            for each in run:
                exact(*each)
    for _ in range(replays):
        if late.random() < 0.3:
            torch.cuda._sleep(late.randrange(400_000))
        which = alike.randrange(5)
        if which < 3:
            captured[which].replay()
        else:
            exact(alike.randrange(1, MOST), alike.choice([1, 2, 4, 8]))
    torch.cuda.synchronize()
    carrier.check()
    return int(exact.wrong.item())


def after_other_kernels(count: int, wire: str | None) -> int:
    """Wrong sums where rows are written just before and spoiled just behind, and memory of a result is used again."""
    group, carrier = staging()
    exact, wrong = Exact(group, carrier, wire), 0
    for call in range(count):
        exact.number.fill_(call)
        x = torch.full((777, WIDTH), float("nan"), dtype=exact.dtype, device="cuda")
        x.copy_(exact.rows(group.rank, 777))
        found = exact.sums[4].sum(x)
        x.fill_(float("nan"))
        other = torch.full((777, 4 * WIDTH), float("nan"), device="cuda")
        del other
        wrong += not torch.equal(found, exact.wanted(777))
    carrier.check()
    return wrong


def late(how: str) -> tuple[list[str], str]:
    """(what each of six calls came to, what `check` says); the last rank is late by more than the patience of others in
    the third: eagerly, in a graph, or its stream is busy."""
    group, carrier = staging()
    exact, verdicts = Exact(group, carrier), []
    run: Any = lambda: exact.sums[2].sum(exact.rows(group.rank, 64))  # noqa: E731
    run()
    torch.cuda.synchronize()
    dist.barrier()
    carrier.looks = IMPATIENT
    if how == "graph":
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = run()

        def replay() -> Tensor:
            graph.replay()
            return out

        call: Any = replay
    else:
        call = run
    for number in range(6):
        exact.number.fill_(number)
        if number == 2 and group.rank == group.size - 1:
            torch.cuda._sleep(4_000_000_000)  # two seconds
        found = call().clone()
        right = torch.equal(found, exact.wanted(64))
        verdicts.append("right" if right else "spoiled" if bool(found.isnan().all()) else "wrong")
    return verdicts, said_by(carrier)


def gone(pieces: int) -> tuple[list[str], str]:
    """As `late`; the last rank makes no call from the third on, and its process ends."""
    group, carrier = staging()
    exact, verdicts = Exact(group, carrier), []
    exact(64, pieces)  # compiled
    torch.cuda.synchronize()
    dist.barrier()
    carrier.looks = IMPATIENT
    for number in range(4):
        if number == 2 and group.rank == group.size - 1:
            break
        exact.number.fill_(number)
        found = exact.sums[pieces].sum(exact.rows(group.rank, 64))
        right = torch.equal(found, exact.wanted(64))
        verdicts.append("right" if right else "spoiled" if bool(found.isnan().all()) else "wrong")
    return verdicts, said_by(carrier)


def not_come() -> dict[str, bool]:
    """By format, and of rows as they are in both types: are sums, and norms, of what has not come NaN, all of them, in
    memory that holds something finite?"""
    found = {}
    plain = [(None, "", dtype) for dtype in (torch.bfloat16, torch.float16)]
    for wire, scales, dtype in [*((*each, torch.bfloat16) for each in FORMATS), *plain]:
        group, carrier = staging(row_bytes=12_000)
        summing = by(carrier, group, wire, scales, 5120, 2)
        carrier.looks = 1
        carrier._flags.tell = lambda half, piece: None  # type: ignore[method-assign]
        x = rows_of(group.rank, 33, 5120, dtype)
        memory = torch.zeros(64 << 20, dtype=torch.int8, device="cuda")
        del memory
        out = summing.sum(x), *summing.sum_norm(x, x, x[0], EPS)
        found[f"{wire} {scales} {dtype}"] = all(bool(each.isnan().all()) for each in out)
        dist.barrier()
        carrier.close()
    return found
