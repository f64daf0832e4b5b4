"""Whole generations: greedy tokens under a plan are the tokens of one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.strategy.file import Parallelism

from ..legal_plans import Plan, preferring
from ..parity import Named
from ..strategy_files import from_plans, ranges_of, strategy_file, world_of
from ..world import RankWorld
from . import generation
from .continuous_batching import batched, refusal
from .tiny_models import FAMILIES

SHARDED = ("reduce_scatter", "latent_all_gather", "all_gather")
WHOLE = ("all_reduce", "all_gather")
RANKS = [Parallelism(2), Parallelism(4, 2)]

pytestmark = pytest.mark.slow
Checkpoint = Callable[..., Path]
Worlds = Callable[[int], RankWorld]


def plan_of(folder: Path, p: Parallelism, *by_layer: tuple[str, ...]) -> Plan:
    return preferring(world_of(folder, p), (*by_layer, *by_layer)[:2])


def named(folder: Path, p: Parallelism) -> list[Named]:
    """Plain sums, shards, both by layer, and shards in prefills alone."""
    plain, shards, mixed = (plan_of(folder, p, *of) for of in ((WHOLE,), (SHARDED,), (SHARDED, WHOLE)))
    pairs = {
        "plain": (plain, plain),
        "shards": (shards, shards),
        "by layer": (mixed, mixed),
        "by mode": (shards, plain),
    }
    return [Named(name, from_plans(folder, p, *pair), *pair) for name, pair in pairs.items()]


def assert_same(by_rank: list[list[tuple[str, list[Any], list[Any]]]]) -> None:
    for rank, found in enumerate(by_rank):
        for name, got, wanted in found:
            assert got == wanted, (rank, name)


@pytest.mark.parametrize("p", RANKS, ids=lambda p: f"tp{p.tp}-dp{p.attn_dp}")
@pytest.mark.parametrize("family", FAMILIES)
def test_generated_tokens_are_those_of_one_process(
    family: str, p: Parallelism, checkpoint: Checkpoint, world: Worlds
) -> None:
    folder = checkpoint(family)
    assert_same(world(p.tp).run(generation.generations, str(folder), named(folder, p)))


def test_a_static_cache_changes_no_token(checkpoint: Checkpoint, world: Worlds) -> None:
    folder, options = checkpoint("qwen3"), {"cache_implementation": "static"}
    assert_same(world(2).run(generation.with_options, str(folder), named(folder, Parallelism(2)), options))


def test_a_dp_group_whose_requests_have_ended_goes_on_with_the_others(checkpoint: Checkpoint, world: Worlds) -> None:
    folder = checkpoint("qwen3")
    by_rank = world(4).run(generation.ending_early, str(folder), named(folder, Parallelism(4, 2)))
    for found in by_rank:
        for name, got, wanted in found:
            assert [row[: len(wanted[0])] for row in got] == wanted, name


def test_a_generation_is_one_prefill_and_decode_steps(checkpoint: Checkpoint, world: Worlds) -> None:
    folder = checkpoint("qwen3")
    for forwards in world(2).run(generation.forwards, str(folder), named(folder, Parallelism(2))[0]):
        assert forwards == [("prefill", 14), *[("decode", 2)] * (generation.NEW_TOKENS - 1)]


# ---- continuous batching ---------------------------------------------------------------------------------------------


def mixed_plan(folder: Path, p: Parallelism, preferred: tuple[str, ...]) -> Named:
    plan = plan_of(folder, p, preferred)
    return Named("mixed", strategy_file(folder, p, {"mixed": [ranges_of([edge.op for edge in plan])]}), plan, plan)


@pytest.mark.parametrize("preferred", [WHOLE, SHARDED], ids=["all_reduce", "shards"])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "qwen3_moe", "llama", "glm4_moe", "gpt_oss", "minimax_m2"])
def test_continuous_batching_generates_the_tokens_of_one_process(
    family: str, preferred: tuple[str, ...], checkpoint: Checkpoint, world: Worlds
) -> None:
    folder = checkpoint(family)
    by_rank = world(2).run(batched, str(folder), mixed_plan(folder, Parallelism(2), preferred))
    for got, wanted, forwards in by_rank:
        assert got == wanted
        assert set(forwards) == {"mixed"}


@pytest.mark.parametrize(
    ("family", "p", "reason"),
    [
        ("deepseek_v3", Parallelism(2), "cannot hold MLA latents; use generate()"),
        ("qwen3_5", Parallelism(2), "cannot hold the state of linear attention; use generate()"),
        ("deepseek_v4", Parallelism(2), "cannot hold pooled keys; use generate()"),
        ("qwen3", Parallelism(4), "cannot hold 2 KV heads over 4 ranks; use generate()"),
        ("qwen3", Parallelism(2, 2), "schedules one batch for all ranks; use generate()"),
    ],
)
def test_continuous_batching_is_refused_where_it_cannot_work(
    family: str, p: Parallelism, reason: str, checkpoint: Checkpoint, world: Worlds
) -> None:
    folder = checkpoint(family)
    for said in world(p.tp).run(refusal, str(folder), mixed_plan(folder, p, WHOLE)):
        assert reason in said
