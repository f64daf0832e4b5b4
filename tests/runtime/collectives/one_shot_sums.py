"""Runs on a rank: sums of a few rows through host memory, on ranks without a GPU."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from commplan.runtime.collectives.host_one_shot import HostOneShot
from commplan.runtime.errors import RefusedError

from ...late_peers import said_by
from ...peer_cases import EPS, Case, error, normed
from .composed_sums import group_of

CPU = torch.device("cpu")
WIDTH = 64


def sums(ranks: int) -> list[tuple[float, bytes]]:
    """By rows and type: the largest error in epsilons, infinite where something else is not as it should; the bits."""
    group, found = group_of(ranks), []
    for rows, dtype in ((1, torch.bfloat16), (5, torch.float16), (9, torch.float32)):
        summing = HostOneShot.make(group, CPU, dtype, WIDTH, 9)
        case = Case((group.rank, ranks), rows, WIDTH, dtype, "normal", 10 * rows, "cpu")
        x, old = case.mine.clone(), case.residual.clone()
        outs = [summing.sum(x), *summing.sum_norm(x, case.residual, case.weight, EPS)]
        alone = summing.sum_norm(x, None, case.weight, EPS)
        over = summing.sum_norm(x, old, case.weight, EPS, overwrite=True)
        wanted = case.sum, normed(case.total, case.weight), case.total
        worst = max(error(*pair) for pair in zip(outs, wanted, strict=True)) / torch.finfo(dtype).eps
        same = torch.equal(alone[1], outs[0]) and all(map(torch.equal, over, outs[1:])) and over[1] is old
        same &= torch.equal(x, case.mine) and summing.sum(x[:0]).shape == (0, WIDTH)
        summing.check()
        summing.close()
        found.append(
            (worst if same else float("inf"), b"".join(each.numpy(force=True).tobytes() for each in _bits(outs)))
        )
    return found


def _bits(outs: list[Tensor]) -> list[Tensor]:
    return [each.view(torch.int16) for each in outs]


def compiled(ranks: int) -> list[bool]:
    """Whether a compiled function makes the same calls."""
    summing = HostOneShot.make(group_of(ranks), CPU, torch.bfloat16, WIDTH, 8)
    weight = torch.ones(WIDTH, dtype=torch.bfloat16)

    def block(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        out, total = summing.sum_norm(x, residual, weight, EPS)
        return summing.sum(out * 2), total

    fast, found = torch.compile(block, fullgraph=True, dynamic=True, backend="aot_eager"), []
    for rows in (2, 5):
        case = Case((group_of(ranks).rank, ranks), rows, WIDTH, torch.bfloat16, "normal", rows, "cpu")
        pairs = zip(block(case.mine, case.residual), fast(case.mine, case.residual), strict=True)
        found.append(all(torch.equal(a, b) for a, b in pairs))
    return found


def hangs(ranks: int, seconds: float) -> tuple[list[str], str]:
    """(what each of four calls came to, what `check` says); the last rank is late by too much in the third."""
    group = group_of(ranks)
    summing, found = HostOneShot.make(group, CPU, torch.float32, WIDTH, 4), []
    summing.looks = 400
    for call in range(4):
        if call == 2 and group.rank == ranks - 1:
            time.sleep(seconds)
        out = summing.sum(torch.full((4, WIDTH), float(call + 1) * (group.rank + 1)))
        right = bool((out == (call + 1) * ranks * (ranks + 1) / 2).all())
        found.append("right" if right else "spoiled" if bool(out.isnan().all()) else "wrong")
    return found, said_by(summing)


def refusals(ranks: int) -> list[str]:
    """What is said of too many rows, and where a rank receives other bytes than were sent."""
    from commplan.runtime.collectives import plain_one_shot

    group, said = group_of(ranks), []
    summing = HostOneShot.make(group, CPU, torch.float32, WIDTH, 4)
    inner = plain_one_shot.PlainOneShot.all_reduce
    for call in (lambda: summing.sum(torch.zeros(400, WIDTH)), _made(group, inner)):
        try:
            call()
        except RefusedError as refused:
            said.append(str(refused))
        finally:
            plain_one_shot.PlainOneShot.all_reduce = inner  # type: ignore[method-assign]
    return said


def _made(group, inner):  # type: ignore[no-untyped-def]
    from commplan.runtime.collectives.plain_one_shot import PlainOneShot

    def make() -> None:
        if group.rank == 0:
            PlainOneShot.all_reduce = lambda *given: inner(*given) * 2  # type: ignore[method-assign]
        HostOneShot.make(group, CPU, torch.float32, WIDTH, 4)

    return make
