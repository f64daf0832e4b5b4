"""Attention TP x DP on eight ranks: two groups of four and four groups of two, unequal and empty groups included."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from commplan.planner.strategy.file import Parallelism

from ..legal_plans import preferring, random_plan
from ..parity import Named, failures
from ..strategy_files import from_plans, world_of
from ..world import RankWorld

PREFERRED = {
    "all_reduce": ("all_reduce", "all_gather"),
    "shards": ("reduce_scatter", "latent_all_gather", "all_gather"),
    "fused": ("all_reduce_all_gather", "reduce_scatter_all_reduce", "all_reduce"),
}
WORLDS = [
    ("qwen3", Parallelism(8, 2)),
    ("qwen3", Parallelism(8, 4)),
    ("deepseek_v3", Parallelism(8, 2)),
    ("deepseek_v3", Parallelism(8, 4, 8, "all_to_all")),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "p"), WORLDS, ids=lambda v: v if isinstance(v, str) else f"{v.attn_dp}x{v.attn_tp}-{v.moe_backend}"
)
def test_attention_tp_x_dp_on_eight_ranks_computes_the_logits_of_one_process(
    family: str, p: Parallelism, checkpoint: Callable[..., Path], world: Callable[[int], RankWorld]
) -> None:
    folder = checkpoint(family)
    algebra, rng = world_of(folder, p), random.Random(8)
    chosen = {name: preferring(algebra, (names, names)) for name, names in PREFERRED.items()}
    chosen |= {f"random {n}": random_plan(algebra, rng) for n in range(3)}
    named = [Named(name, from_plans(folder, p, plan, plan), plan, plan) for name, plan in chosen.items()]
    by_rank = world(p.tp).run(failures, str(folder), named, 2e-5)
    assert not any(by_rank), "\n".join(f"rank {rank}: {text}" for rank, texts in enumerate(by_rank) for text in texts)
