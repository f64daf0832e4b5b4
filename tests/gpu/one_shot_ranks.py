"""What runs on each rank: sums of a few rows by one kernel, whose rows land in host memory."""

from __future__ import annotations

import random
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from commplan.runtime.collectives.host_one_shot import HostOneShot
from commplan.runtime.ranks.groups import Group

from ..late_peers import said_by
from ..peer_cases import EPS, Case, error, normed, poison
from .ranks import start
from .staged_ranks import same_on_all

WIDTH = 5120
MOST = 256  # rows
IMPATIENT = 100_000  # looks: a few tenths of a second
SIZES = (1, 2, 7, 16, 64, 200, MOST)


def summing(width: int = WIDTH, dtype: torch.dtype = torch.bfloat16) -> tuple[Group, HostOneShot]:
    rank, world, device = start()
    group = Group("tp", dist.group.WORLD, world, rank)
    return group, HostOneShot.make(group, device, dtype, width, MOST)


def sums() -> dict[str, tuple[float, bool]]:
    """By width, type and rows: the largest error in epsilons, and whether all ranks hold the same bits."""
    found = {}
    for width, dtype in ((5120, torch.bfloat16), (7168, torch.float16), (1040, torch.bfloat16)):
        group, by = summing(width, dtype)
        for rows in SIZES:
            case = Case((group.rank, group.size), rows, width, dtype, "normal", 100 * rows)
            poison(rows * width, dtype)
            outs = [by.sum(case.mine), *by.sum_norm(case.mine, case.residual, case.weight, EPS)]
            wanted = case.sum, normed(case.total, case.weight), case.total
            worst = max(error(*pair) for pair in zip(outs, wanted, strict=True)) / torch.finfo(dtype).eps
            found[f"{rows}x{width}"] = worst, same_on_all(*outs)
        by.check()
        dist.barrier()
        by.close()
    return found


class Exact:
    """Sums of small whole numbers, which bf16 adds as they are, and how often one was not right. Every call has other
    numbers, and every row of it; a norm's total is looked at."""

    def __init__(self, group: Group, by: HostOneShot) -> None:
        self.group, self.by = group, by
        self.wrong = torch.zeros(1, dtype=torch.int64, device="cuda")
        self.number = torch.zeros(1, dtype=torch.int64, device="cuda")
        self.weight = torch.ones(WIDTH, dtype=torch.bfloat16, device="cuda")

    def rows(self, rank: int, rows: int) -> Tensor:
        at = torch.arange(rows, device="cuda")[:, None] * 5 + torch.arange(WIDTH, device="cuda")[None, :] * 7
        return ((at + 11 * rank + 3 * self.number) % 29 - 14).to(torch.bfloat16)

    def wanted(self, rows: int) -> Tensor:
        return torch.stack([self.rows(rank, rows) for rank in range(self.group.size)]).sum(0)

    def run(self, rows: int, norm: bool) -> Tensor:
        x = self.rows(self.group.rank, rows)
        return self.by.sum_norm(x, None, self.weight, EPS)[1] if norm else self.by.sum(x)

    def __call__(self, rows: int, norm: bool) -> None:
        self.wrong += (self.run(rows, norm) != self.wanted(rows)).any()  # NaN is never the same
        self.number += 1


def calls(count: int, seed: int = 1) -> int:
    """Wrong sums of calls of random sizes, by ranks that are late at random."""
    group, by = summing()
    exact, alike, late = Exact(group, by), random.Random(seed), random.Random(f"{seed} {group.rank}")
    for _ in range(count):
        if late.random() < 0.3:
            torch.cuda._sleep(late.randrange(400_000))
        exact(alike.choice(SIZES), alike.random() < 0.5)
    torch.cuda.synchronize()
    by.check()
    return int(exact.wrong.item())


def graphs(replays: int) -> int:
    """Wrong sums of graphs with odd numbers of calls, replayed in any order, in turn with calls outside, by ranks that
    are late at random."""
    group, by = summing()
    exact, alike, late = Exact(group, by), random.Random(5), random.Random(group.rank)
    runs = [[(16, True), (1, False), (64, True)], [(MOST, True)], [(1, True), (200, False)]]
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
            exact(alike.choice(SIZES), alike.random() < 0.5)
    torch.cuda.synchronize()
    by.check()
    return int(exact.wrong.item())


def late(how: str) -> tuple[list[str], str]:
    """(what each of six calls came to, what `check` says); the last rank is late by more than the patience of others in
    the third: eagerly or in a graph, its stream being busy."""
    group, by = summing()
    exact, verdicts = Exact(group, by), []
    run: Any = lambda: exact.run(64, True)  # noqa: E731
    run()
    torch.cuda.synchronize()
    dist.barrier()
    by.looks = IMPATIENT
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
            torch.cuda._sleep(8_000_000_000)  # four seconds
        verdicts.append(verdict(call().clone(), exact.wanted(64)))
    return verdicts, said_by(by)


def gone() -> tuple[list[str], str]:
    """As `late`; the last rank makes no call from the third on, and its process ends."""
    group, by = summing()
    exact, verdicts = Exact(group, by), []
    exact(64, True)  # compiled
    torch.cuda.synchronize()
    dist.barrier()
    by.looks = IMPATIENT
    for number in range(4):
        if number == 2 and group.rank == group.size - 1:
            break
        exact.number.fill_(number)
        verdicts.append(verdict(exact.run(64, True), exact.wanted(64)))
    return verdicts, said_by(by)


def verdict(found: Tensor, wanted: Tensor) -> str:
    """Rows that came before others were given up are right."""
    lost = found.isnan()
    if not bool(((found == wanted) | lost).all()):
        return "wrong"
    return "spoiled" if bool(lost.any()) else "right"
