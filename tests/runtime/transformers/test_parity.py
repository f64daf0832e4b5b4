"""Every plan of the classes exact and reordered computes the logits of one process, by the planned collectives.

Each family runs under the uniform strategies, a mix of two of them by layer, and random legal plans that together use
every edge of the layout algebra, on prompts with fewer tokens than ranks, unequal and empty DP groups, and cached
decode steps.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from commplan.planner.strategy.errors import NoLegalPlanError
from commplan.planner.strategy.file import Parallelism

from ..legal_plans import Edge, all_edges, covering_plans, preferring
from ..parity import RANDOM, Named, failures
from ..strategy_files import from_plans, uniform, world_of
from ..world import RankWorld
from .tiny_models import FAMILIES

LOGIT_BOUND = 2e-5
SHARDED_SUMS = ("reduce_scatter", "latent_all_gather", "all_gather")
WHOLE_SUMS = ("all_reduce", "all_gather")

DENSE = [Parallelism(2), Parallelism(2, 2), Parallelism(4), Parallelism(4, 2), Parallelism(4, 4)]
BY_EXPERT = [Parallelism(2, 1, 2), Parallelism(4, 1, 4)]
ALL_TO_ALL = [Parallelism(p.tp, p.attn_dp, p.tp, "all_to_all") for p in DENSE]


def spelled(p: Parallelism) -> str:
    experts = "" if p.ep == 1 else "-ep" if p.moe_backend == "tensor_parallel" else "-all_to_all"
    return f"tp{p.tp}-dp{p.attn_dp}{experts}"


def kind(family: str, p: Parallelism) -> tuple[bool, str, bool]:
    """What the layout algebra sees of a family: latents, which layers take token shards, streams of its residual."""
    fields = FAMILIES[family].fields
    all_have = {"num_experts", "num_local_experts", "n_routed_experts"} & set(fields)
    experts = "some" if "first_k_dense_replace" in fields else "all" if all_have else "none"
    latents = bool(fields.get("q_lora_rank")) and "kv_lora_rank" in fields
    return latents, experts if p.moe_backend == "all_to_all" else "none", "hc_sinkhorn_iters" in fields


# Attention and experts of another family, each of which runs in all worlds.
COMBINED = {"qwen3_5_moe": [Parallelism(2), Parallelism(4, 2), BY_EXPERT[1], ALL_TO_ALL[3]]}


def worlds_of(family: str) -> list[Parallelism]:
    if family in COMBINED:
        return COMBINED[family]
    return DENSE + (BY_EXPERT + ALL_TO_ALL if "num_experts_per_tok" in FAMILIES[family].fields else [])


EVERYTHING = [(family, p) for family in FAMILIES for p in worlds_of(family)]
NUM_FILES = {Parallelism(2): 20, Parallelism(4): 10, Parallelism(4, 2): 10}  # each with two random plans


def plans(checkpoint: Path, family: str, p: Parallelism, folder: Path) -> list[Named]:
    """What a family runs in one world. Families with the same choices share the plans that cover every edge."""
    world = world_of(checkpoint, p)
    alike = [other for other, q in EVERYTHING if q == p and kind(other, p) == kind(family, p)]
    found = []
    if world.sharded_mlps or p.ep == 1:  # who holds which expert is nothing that the algebra sees
        chosen = covering_plans(world, 2 * NUM_FILES.get(p, 1) * len(alike))
        pairs = list(zip(chosen[::2], chosen[1::2] + chosen[:1], strict=False))
        for n in range(alike.index(family), len(pairs), len(alike)):
            found.append(Named(f"{RANDOM} {n}", from_plans(checkpoint, p, *pairs[n]), *pairs[n]))
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


@pytest.mark.slow
@pytest.mark.parametrize("p", [*DENSE, *ALL_TO_ALL], ids=spelled)
def test_the_plans_use_every_edge_of_the_algebra(
    p: Parallelism, checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    used: set[Edge] = set()
    there: set[Edge] = set()
    for family in (family for family, q in EVERYTHING if q == p):
        there |= all_edges(world_of(checkpoint(family), p), quantized=False)
        for plan in plans(checkpoint(family), family, p, tmp_path):
            used |= {*(plan.prefill or ()), *(plan.decode or ())}
    assert not there - used


@pytest.mark.slow
@pytest.mark.parametrize("p", NUM_FILES, ids=spelled)
def test_each_family_runs_twenty_random_plans(p: Parallelism, checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    for family in (family for family, q in EVERYTHING if q == p):
        named = plans(checkpoint(family), family, p, tmp_path)
        random = [plan for plan in named if plan.name.startswith(RANDOM)]
        assert len({plan.prefill for plan in random} | {plan.decode for plan in random}) >= 20
