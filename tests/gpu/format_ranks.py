"""What runs on each rank: sums in every format against float64. As ranks.py, for any number of ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist

from commplan.runtime.kernels.peer_impls import KERNEL_GROUPS, KERNEL_WIRES

from ..format_cases import How, bound_of, errors_of, next_to_nothing, not_finite, one_channel
from ..peer_cases import EPS, Case, rows_of
from .ranks import ahead, peers_of, start

TWO_SHOTS: list[How] = [("two_shot", wire, "128") for wire in ("int8", "fp8_e4m3")]


def hows(turn: int = 0) -> list[How]:
    """Every format by every algorithm, each with another group: all combinations would be compiled for minutes."""
    number = len(KERNEL_GROUPS)
    return [
        (a, wire, KERNEL_GROUPS[(n + turn) % number])
        for a in ("gather", "two_shot")
        for n, wire in enumerate(KERNEL_WIRES)
    ]


def sums(width: int, sizes: tuple[int, ...], turn: int, seed: int) -> list[tuple[How, int, float, bool]]:
    """(format, rows, error over what is allowed, whether all ranks hold the same bits)."""
    ranks = start()[:2]
    peers = peers_of(torch.bfloat16, width, max(sizes))
    found = []
    cases = [(rows, Case(ranks, rows, width, torch.bfloat16, "normal", seed)) for rows in sizes]
    with ahead(peers):
        for _, case in cases:
            for how in hows(turn):
                errors_of(peers, case, how)
    for rows, case in cases:
        for how in hows(turn):
            worst, results = errors_of(peers, case, how)
            mine = torch.cat(results)
            first = mine.clone()
            dist.broadcast(first, 0)
            few = 1.35 if rows * width < 100_000 else 1.0
            found.append((how, rows, worst / (few * bound_of(how)), bool(torch.equal(first, mine))))
    torch.cuda.synchronize()
    peers.check()
    return found


def beside_one_channel(width: int) -> dict[How, tuple[float, float]]:
    """Relative errors outside and inside of the group that holds a channel 300 times the others."""
    ranks = start()[:2]
    peers = peers_of(torch.bfloat16, width, 256)
    with ahead(peers):
        for how in TWO_SHOTS:
            one_channel(peers, ranks, 256, width, how, "cuda")
    return {how: one_channel(peers, ranks, 256, width, how, "cuda") for how in TWO_SHOTS}


def bad_input(width: int, value: float) -> dict[How, list[str]]:
    """What is wrong with a value that is not finite, and with next to nothing."""
    ranks = start()[:2]
    peers = peers_of(torch.bfloat16, width, 32)
    every = hows(2)[len(KERNEL_WIRES) :]

    def wrong_with(how: How) -> list[str]:
        wrong = not_finite(peers, ranks, width, how, value, "cuda")
        return wrong + next_to_nothing(peers, ranks, width, how, "cuda")

    with ahead(peers):
        for how in every:
            wrong_with(how)
    return {how: wrong_with(how) for how in every}


def taking_turns(calls: int) -> int:
    """Wrong results of random calls in every format, of ranks that are late by random times; they share a workspace."""
    rank, world, _ = start()
    width, most = 1040, 300
    peers = peers_of(torch.bfloat16, width, most)
    parts = [rows_of(100 + r, most, width, torch.bfloat16) for r in range(world)]
    weight = rows_of(5, 1, width, torch.bfloat16)[0]
    with ahead(peers):
        for how in hows():
            for rows in (1, most):
                peers.quantized_all_reduce(parts[rank][:rows], *how)
                peers.quantized_all_reduce_norm(parts[rank][:rows], *how, None, weight, EPS)
    gathers = [how for how in hows() if how[0] == "gather"]
    wanted = {how: peers.quantized_all_reduce(parts[rank], *how) for how in gathers}
    exact = torch.stack([part.float() for part in parts]).sum(0)
    wrong = torch.zeros(1, dtype=torch.int64, device="cuda")
    alike, late = torch.Generator().manual_seed(1), torch.Generator().manual_seed(rank)
    every = hows()
    for call in range(calls):
        how = every[int(torch.randint(0, len(every), (1,), generator=alike))]
        rows = int(torch.randint(1, most + 1, (1,), generator=alike)) if call % 3 else 1 + call % 7
        x = parts[rank][:rows]
        if int(torch.randint(0, 4, (1,), generator=late)) == 0:
            torch.cuda._sleep(int(torch.randint(0, 40_000, (1,), generator=late)))
        _, total = peers.quantized_all_reduce_norm(x, *how, None, weight, EPS)
        if how[0] == "gather":
            wrong += (total != wanted[how][:rows]).any()
        else:  # who owns a row depends on how many there are, and its own part is not quantised
            off = (total.float() - exact[:rows]).norm() > 1.35 * bound_of(how) * exact[:rows].norm()
            wrong += off
    torch.cuda.synchronize()
    peers.check()
    return int(wrong)
