"""Every plan of the classes exact and reordered computes the logits of one process, by the planned collectives.

Each family runs under the uniform strategies, a mix of two of them by layer, and random legal plans that together use
every edge of the layout algebra, on prompts with fewer tokens than ranks, unequal and empty DP groups, and cached
decode steps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from commplan.planner.errors import NoLegalPlanError
from commplan.planner.strategy_file import Parallelism

from .legal_plans import all_edges, covering_plans, preferring
from .parity import Named, failures
from .strategy_files import from_plans, uniform, world_of
from .tiny_models import FAMILIES
from .world import RankWorld

LOGIT_BOUND = 2e-5
NUM_RANDOM = 20
SHARDED_SUMS = ("reduce_scatter", "latent_all_gather", "all_gather")
WHOLE_SUMS = ("all_reduce", "all_gather")

DENSE = [Parallelism(2), Parallelism(2, 2), Parallelism(4), Parallelism(4, 2), Parallelism(4, 4)]
BY_EXPERT = [Parallelism(2, 1, 2), Parallelism(4, 1, 4)]
ALL_TO_ALL = [Parallelism(p.tp, p.attn_dp, p.tp, "all_to_all") for p in DENSE]


def spelled(p: Parallelism) -> str:
    experts = "" if p.ep == 1 else "-ep" if p.moe_backend == "tensor_parallel" else "-all_to_all"
    return f"tp{p.tp}-dp{p.attn_dp}{experts}"


def worlds_of(family: str) -> list[Parallelism]:
    return DENSE + (BY_EXPERT + ALL_TO_ALL if family not in ("qwen2", "qwen3") else [])


EVERYTHING = [(family, p) for family in FAMILIES for p in worlds_of(family)]
SPLIT_EXPERTS = ("qwen3_moe", "deepseek_v2_lite", "deepseek_v3")  # all MoE; dense and MoE; the same with latents


def plans(checkpoint: Path, family: str, p: Parallelism, folder: Path) -> list[Named]:
    """What runs in one world. What the algebra does not see (who holds which expert) needs no random plans of its own."""
    world = world_of(checkpoint, p)
    prefills, decodes = [], []
    if p.ep == 1 or (world.sharded_mlps and family in SPLIT_EXPERTS):
        prefills = covering_plans(world, NUM_RANDOM if p in (Parallelism(2), Parallelism(4, 2)) else 1, seed=1)
        decodes = covering_plans(world, len(prefills), seed=2)
    pairs = [(plan, decodes[n % len(decodes)]) for n, plan in enumerate(prefills)]
    found = [Named(f"random {n}", from_plans(checkpoint, p, *pair), *pair) for n, pair in enumerate(pairs)]
    by_layer = preferring(world, (SHARDED_SUMS, WHOLE_SUMS)), preferring(world, (WHOLE_SUMS, SHARDED_SUMS))
    found.append(Named("mix by layer", from_plans(checkpoint, p, *by_layer), *by_layer))
    for strategy in ("all_reduce", "tp_sp", "mixed_comm"):
        try:
            found.append(Named(strategy, uniform(checkpoint, p, strategy, folder)))
        except NoLegalPlanError:
            assert strategy == "mixed_comm" and (p.attn_dp in (1, p.tp) or world.sharded_mlps)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("family", "p"), EVERYTHING, ids=lambda v: v if isinstance(v, str) else spelled(v))
def test_every_plan_computes_the_logits_of_one_process(
    family: str,
    p: Parallelism,
    checkpoint: Callable[..., Path],
    world: Callable[[int], RankWorld],
    tmp_path: Path,
) -> None:
    folder = checkpoint(family)
    by_rank = world(p.tp).run(failures, str(folder), plans(folder, family, p, tmp_path), LOGIT_BOUND)
    found = [f"rank {rank}: {text}" for rank, texts in enumerate(by_rank) for text in texts]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("p", [*DENSE, *ALL_TO_ALL], ids=spelled)
def test_the_plans_use_every_edge_of_the_algebra(
    p: Parallelism, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    for family in FAMILIES if p.ep == 1 else SPLIT_EXPERTS:
        named = plans(checkpoint(family), family, p, tmp_path)
        for mode in ("prefill", "decode"):
            used = {edge for plan in named if (edges := getattr(plan, mode)) is not None for edge in edges}
            missing = all_edges(world_of(checkpoint(family), p), quantized=False) - used
            assert not missing, (family, mode, missing)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_runs_twenty_random_plans_on_two_and_on_four_ranks(
    family: str, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    for p in (Parallelism(2), Parallelism(4, 2)):
        named = plans(checkpoint(family), family, p, tmp_path)
        assert sum(plan.name.startswith("random") for plan in named) >= NUM_RANDOM
