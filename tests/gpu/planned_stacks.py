"""What runs on each rank: a server's stages under plans with rows in shards, by NCCL and by kernels of our own."""

from __future__ import annotations

import torch
import torch.distributed as dist

from ..runtime.servers.sglang.planned_stack import ServerGroup, replayed_error, stack_error, stack_plans
from .ranks import start

WIDTH, LATENTS = 1024, 288
COUNTS = [1, 2, 3, 17, 256, 1000]
REPLAYED = 5


def errors_of_stacks() -> dict[str, dict[int, tuple[float, bool]]]:
    """Kind of plan to tokens to (relative RMS error, whether exactly the planned ops ran); 0 tokens: of a graph."""
    rank, world, device = start()
    group = ServerGroup(rank, world, dist.group.WORLD, dist.new_group(backend="gloo"))
    found = {}
    for kind, file in stack_plans("nccl", "bf16", WIDTH, LATENTS, world).items():
        found[kind] = stack_error(file, group, device, COUNTS)
        found[kind][0] = replayed_error(file, group, device, REPLAYED)
        torch.cuda.synchronize()
    return found
