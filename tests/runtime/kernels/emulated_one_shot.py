"""Sums by one kernel over host memory, in Triton's interpreter: ranks are processes that have mapped one memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ... import late_peers
from ...late_peers import ROWS, WIDTH, Fault, Kind, Meeting, finite_memory, said_by, verdicts, wandering
from ...peer_cases import EPS, Case, error, normed

CPU = torch.device("cpu")


def started() -> Any:
    """The group of this process."""
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    torch.set_num_threads(1)
    from commplan.runtime.ranks.groups import Group

    if not dist.is_initialized():
        dist.init_process_group("gloo")
    return Group("tp", dist.group.WORLD, int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"]))


def over_host_memory(width: int, rows: int, dtype: torch.dtype = torch.bfloat16) -> tuple[Any, Any]:
    """(this rank's group, its sums by our kernel)."""
    group = started()
    from commplan.runtime.collectives.host_one_shot import on_gpus

    return group, on_gpus(group, CPU, dtype, width, rows)


def kinds(world: int) -> dict[str, Kind]:
    return {
        "sum": Kind(lambda s, c, r: (s.sum(c.parts[r]),), lambda c, r: c.total()),
        "norm": Kind(
            lambda s, c, r: s.sum_norm(c.parts[r], c.residual, c.weight, EPS)[::-1],
            lambda c, r: c.total() + c.residual.double(),
        ),
    }


def sums(shapes: list[tuple[int, int, torch.dtype]]) -> list[tuple[float, bytes]]:
    """By (rows, width, type): the largest error in epsilons, infinite where anything else is not as it should be, and
    the bits."""
    found = []
    for rows, width, dtype in shapes:
        group, summing = over_host_memory(width, rows, dtype)
        case = Case((group.rank, group.size), rows, width, dtype, "normal", 100 * rows, "cpu")
        summing._try(group, torch.ones(1, width, dtype=dtype))
        old = case.residual.clone()
        outs = [summing.sum(case.mine), *summing.sum_norm(case.mine, case.residual, case.weight, EPS)]
        alone = summing.sum_norm(case.mine, None, case.weight, EPS)
        over = summing.sum_norm(case.mine, old, case.weight, EPS, overwrite=True)
        wanted = case.sum, normed(case.total, case.weight), case.total
        worst = max(error(*pair) for pair in zip(outs, wanted, strict=True)) / torch.finfo(dtype).eps
        same = torch.equal(alone[1], outs[0]) and all(map(torch.equal, over, outs[1:])) and over[1] is old
        none = summing.sum(case.mine[:0]).shape == (0, width)
        summing.check()
        found.append((worst if same and none else float("inf"), b"".join(map(_bits, outs))))
    return found


def _bits(x: Tensor) -> bytes:
    return x.view(torch.int16).numpy().tobytes()


def too_many(rows: int) -> str:
    """What is said of more rows than there is room for."""
    from commplan.runtime.errors import RefusedError

    _, summing = over_host_memory(1024, rows)
    try:
        summing.sum_norm(torch.zeros(rows + 8, 1024, dtype=torch.bfloat16), None, torch.ones(1024).bfloat16(), EPS)
    except RefusedError as refused:
        return str(refused)
    return ""


def compiled() -> list[bool]:
    """Whether a compiled function makes the same calls, for several sizes from one graph."""
    group, summing = over_host_memory(WIDTH, 8)
    weight = torch.ones(WIDTH, dtype=torch.bfloat16)

    def block(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        out, total = summing.sum_norm(x, residual, weight, EPS)
        return summing.sum(out * 2), total

    fast, found = torch.compile(block, fullgraph=True, dynamic=True, backend="aot_eager"), []
    for rows in (2, 5, 6):
        case = Case((group.rank, group.size), rows, WIDTH, torch.bfloat16, "normal", rows, "cpu")
        pairs = zip(block(case.mine, case.residual), fast(case.mine, case.residual), strict=True)
        found.append(all(torch.equal(a, b) for a, b in pairs))
    return found


def faulty(folder: str, faults: list[tuple[str, str, Fault]]) -> list[tuple[str, list[str], str]]:
    """(where, what each call of this rank came to, what its check says), for (folder, op, fault)."""
    found = []
    with finite_memory():
        for name, op, fault in faults:
            group, summing = over_host_memory(WIDTH, ROWS)
            ranks = group.rank, group.size
            done = verdicts(summing, kinds(group.size)[op], fault, Meeting(Path(folder, name), group.rank), ranks, 20)
            found.append((name, done, said_by(summing)))
    return found


def at_random_times(seeds: int) -> list[list[str]]:
    """What each call of this rank came to, by seed, where ranks are late by about their patience."""
    late_peers.kinds, found = kinds, []  # type: ignore[assignment]
    with finite_memory():
        for seed in range(seeds):
            group, summing = over_host_memory(WIDTH, ROWS)
            dist.barrier()
            found.append(wandering(summing, (group.rank, group.size), looks=20, seed=seed, longest_s=0.1))
    return found
