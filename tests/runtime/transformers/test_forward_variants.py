"""A planned model is called like any transformers model: embeddings, last logits, caches, padding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from commplan.planner.strategy.file import Parallelism

from ..legal_plans import preferring
from ..parity import Named
from ..strategy_files import from_plans, world_of
from ..world import RankWorld
from .forward_variants import errors, head_in_rows, refusal_of_embeddings
from .tiny_models import FAMILIES

SHARDED = ("reduce_scatter", "latent_all_gather", "all_gather")
PLANS = {
    "all_reduce": (("all_reduce", "all_gather"),),
    "sharded": (SHARDED,),
    "two-step": (("reduce_scatter_all_gather", "all_reduce"),),
    "fused": (("all_reduce_all_gather", "reduce_scatter_all_reduce", "all_reduce"),),
}
RANKS = [Parallelism(2), Parallelism(4, 2)]

# What DeepSeek-V4 cannot do in one process either: pick experts without ids, keep pooled keys in a cache of fixed size,
# and leave padding out of what it pools.
WITHOUT = {"deepseek_v4": ("embeddings_given", "static_cache", "left_padding")}

pytestmark = pytest.mark.slow


def named(folder: Path, p: Parallelism) -> list[Named]:
    found = []
    for name, preferred in PLANS.items():
        plan = preferring(world_of(folder, p), preferred * 2)
        if name == "fused" and p.attn_dp == 1:
            continue
        found.append(Named(name, from_plans(folder, p, plan, plan), plan, plan))
    return found


@pytest.mark.parametrize("p", RANKS, ids=lambda p: f"tp{p.tp}-dp{p.attn_dp}")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_way_of_calling_gives_the_logits_of_one_process(
    family: str, p: Parallelism, checkpoint: Callable[..., Path], world: Callable[[int], RankWorld]
) -> None:
    folder, without = checkpoint(family), WITHOUT.get(family, ())
    for rank, of_rank in enumerate(world(p.tp).run(errors, str(folder), named(folder, p), without)):
        wrong = {key: value for key, value in of_rank.items() if value > 2e-5}
        assert not wrong, (rank, wrong)


def test_experts_that_are_picked_by_token_id_want_ids(
    checkpoint: Callable[..., Path], world: Callable[[int], RankWorld]
) -> None:
    folder = checkpoint("deepseek_v4")
    for said in world(2).run(refusal_of_embeddings, str(folder), named(folder, Parallelism(2))[0]):
        assert said == "inputs_embeds: experts of this model are picked by token id: give it input_ids"


def test_head_in_gathers_only_the_rows_that_need_logits(
    checkpoint: Callable[..., Path], world: Callable[[int], RankWorld]
) -> None:
    folder = checkpoint("qwen3")
    sharded = next(plan for plan in named(folder, Parallelism(2)) if plan.name == "sharded")
    by_rank = world(2).run(head_in_rows, str(folder), sharded)
    # Last tokens stand in rows 4, 9 and 14 of 15: one on rank 0 (rows 0-7), two on rank 1; each rank sends two.
    assert by_rank == [(2, 8), (2, 8)]
