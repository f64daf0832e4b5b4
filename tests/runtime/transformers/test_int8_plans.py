"""Whole plans with INT8 sums stay within the error that the planner charges them for.

The error budget adds e_b^2 over the quantised boundaries; the logits' relative RMS error may be the root of that sum.
The models here select nothing by top-k (dense, or all experts taken): a selection that flips has no such bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from commplan.planner.cost.numerics import relative_rms_error
from commplan.planner.strategy.file import Parallelism

from ..legal_plans import Edge, Plan, World, all_edges, covering_plans, is_quantized
from ..parity import Named, relative_rms
from ..strategy_files import from_plans, world_of
from ..world import RankWorld

EVERY_EXPERT = {"num_experts_per_tok": 8}
MODELS = {
    "qwen2": {},
    "qwen3": {},
    "qwen3_moe": EVERY_EXPERT,
    "deepseek_v3": {**EVERY_EXPERT, "n_group": 1},
}
WORLDS = [
    ("qwen2", Parallelism(2)),
    ("qwen3", Parallelism(4)),
    ("qwen3", Parallelism(4, 2)),
    ("qwen3", Parallelism(4, 4)),
    ("qwen3_moe", Parallelism(4, 2, 4, "all_to_all")),
    ("deepseek_v3", Parallelism(2)),
    ("deepseek_v3", Parallelism(4, 2, 4, "all_to_all")),
]
pytestmark = pytest.mark.parametrize(
    ("family", "p"), WORLDS, ids=lambda v: v if isinstance(v, str) else f"tp{v.tp}-dp{v.attn_dp}-{v.moe_backend}"
)


def charged(world: World, plan: Plan) -> float:
    """Relative RMS error that the planner expects of a plan: the root of the sum over its quantised boundaries."""
    size = {"attn_out": world.attn_tp, "mlp_out": world.tp}
    return math.sqrt(sum(relative_rms_error(e.op, size[e.boundary]) ** 2 for e in plan if is_quantized(e)))


def quantized_plans(world: World) -> list[Plan]:
    return [plan for plan in covering_plans(world, 1, quantized=True) if any(map(is_quantized, plan))]


@pytest.mark.slow
def test_the_error_is_within_what_the_budget_charges(
    family: str, p: Parallelism, checkpoint: Callable[..., Path], world: Callable[[int], RankWorld]
) -> None:
    folder = checkpoint(family, **MODELS[family])
    algebra = world_of(folder, p)
    chosen = quantized_plans(algebra)
    named = [Named(str(n), from_plans(folder, p, plan, plan), plan, plan) for n, plan in enumerate(chosen)]
    by_rank = world(p.tp).run(relative_rms, str(folder), named)
    for of_ranks, plan in zip(zip(*by_rank, strict=True), chosen, strict=True):
        error, allowed = (
            math.sqrt(sum(squared for squared, _ in of_ranks) / sum(s for _, s in of_ranks)),
            charged(algebra, plan),
        )
        # The charge is an expected error of normal rows of 5120, not a bound: rows of 64 may exceed it a little.
        assert allowed / 20 < error < 2 * allowed, ", ".join(str(edge.op) for edge in plan)


@pytest.mark.slow
def test_the_plans_use_every_quantised_edge(family: str, p: Parallelism, checkpoint: Callable[..., Path]) -> None:
    algebra = world_of(checkpoint(family, **MODELS[family]), p)
    used: set[Edge] = {edge for plan in quantized_plans(algebra) for edge in plan}
    assert used >= {edge for edge in all_edges(algebra) if is_quantized(edge)} != set()
