"""Ways to do the same thing on GPUs of one host: how ranks begin, how ways are measured in turn, and what one saves."""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

NO_MULTICAST = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1", "NVSHMEM_DISABLE_NVLS": "1"}
EPS = 1e-6
LIBRARY, NOTHING = "NCCL, norm", "no sum"


class Here(NamedTuple):
    """This rank, of how many, its GPU, and the group of all."""

    rank: int
    world: int
    device: Any
    group: Any


def begin() -> Here:
    """A rank over NCCL, without gradients and without multicast over NVLink."""
    os.environ |= NO_MULTICAST
    import torch
    import torch.distributed as dist

    from commplan.runtime.ranks.groups import Group

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.cuda.set_device(rank)
    device = torch.device("cuda", rank)
    dist.init_process_group("nccl", device_id=device)
    torch.set_grad_enabled(False)
    return Here(rank, world, device, Group("tp", dist.group.WORLD, world, rank))


def in_turn(samples: Mapping[str, Callable[[], float]], rounds: int, seed: int) -> dict[str, float]:
    """Medians over rounds, in each of which every way is measured once, in another order."""
    found: dict[str, list[float]] = {}
    for turn in range(rounds):
        order = list(samples)
        random.Random(100 * seed + turn).shuffle(order)
        for name in order:
            found.setdefault(name, []).append(samples[name]())
    return {name: statistics.median(us) for name, us in found.items()}


def told(times: Mapping[str, float]) -> str:
    """Every way's time, and in brackets what it saves of what the library's sum costs."""
    most, least = times.get(LIBRARY), times.get(NOTHING)
    words = []
    for name, us in times.items():
        share = f" ({(most - us) / (most - least):.0%})" if most and least and name not in (LIBRARY, NOTHING) else ""
        words.append(f"{name} {us:.1f}{share}")
    return "; ".join(words)
