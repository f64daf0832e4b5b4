"""In bf16 a plan is as accurate as the roundings that it adds allow, measured by what one process loses in bf16.

One process rounds the sum at a boundary once. Over N ranks, with s the variance of the sum and u that of one rounding:
each rank rounds its partial, of variance s / N: together u * s, as much as the one rounding of one process. Adding the
partials one after another rounds N - 1 times, at variances 2s/N, 3s/N, ... s: u * s * (N + 2)(N - 1) / 2N. A boundary
so loses 1 + (N + 2)(N - 1) / 2N times the variance, everything between boundaries loses the same. A fold or a gather
adds no rounding: one process rounds where it adds the residual, too. With attention DP a boundary may sum over one axis
and then move the residual through a second sum, of zeros and one row: exact.

The models select nothing by top-k (dense, all experts or all keys taken): a selection that flips has no such bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from commplan.planner.strategy.file import Parallelism

from ..legal_plans import covering_plans
from ..parity import Named
from ..strategy_files import from_plans, world_of
from ..world import RankWorld
from .bf16 import squares

EVERY_EXPERT = {"num_experts_per_tok": 8}
MODELS = {
    "qwen2": {},
    "qwen3": {},
    "qwen3_moe": EVERY_EXPERT,
    "qwen3_5": {},
    "gpt_oss": EVERY_EXPERT,
    "minimax_m2": EVERY_EXPERT,
    "glm_moe_dsa": {**EVERY_EXPERT, "n_group": 1, "index_topk": 64},
    "deepseek_v4": {**EVERY_EXPERT, "index_topk": 64},
    "deepseek_v2_lite": {**EVERY_EXPERT, "n_group": 1},
    "deepseek_v3": {**EVERY_EXPERT, "n_group": 1},
    "deepseek_v32": {**EVERY_EXPERT, "n_group": 1, "index_topk": 64},
}
WORLDS = [
    *((family, Parallelism(2)) for family in MODELS),
    ("qwen3", Parallelism(4)),
    ("deepseek_v3", Parallelism(4, 2)),
    ("qwen3_moe", Parallelism(4, 2, 4, "all_to_all")),
]


def added_variance(ranks: int) -> float:
    """Of the rounding at a boundary, as a multiple of one process's."""
    return 1 + (ranks + 2) * (ranks - 1) / (2 * ranks)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "p"), WORLDS, ids=lambda v: v if isinstance(v, str) else f"tp{v.tp}-dp{v.attn_dp}-{v.moe_backend}"
)
def test_a_plan_in_bf16_loses_no_more_than_its_roundings(
    family: str, p: Parallelism, checkpoint: Callable[..., Path], world: Callable[[int], RankWorld]
) -> None:
    folder = checkpoint(family, **MODELS[family])
    chosen = covering_plans(world_of(folder, p), 1)
    named = [Named(str(n), from_plans(folder, p, plan, plan, activations="bf16")) for n, plan in enumerate(chosen)]
    by_rank = world(p.tp).run(squares, str(folder), named)
    for of_ranks, plan in zip(zip(*by_rank, strict=True), chosen, strict=True):
        planned, single, logits = (math.sqrt(sum(values)) for values in zip(*of_ranks, strict=True))
        ops = ", ".join(str(edge.op) for edge in plan)
        assert planned <= math.sqrt(added_variance(p.tp)) * single, ops
        assert torch.finfo(torch.bfloat16).eps / 10 < planned / logits, f"these are not the logits of bf16: {ops}"


def test_roundings_are_counted_right() -> None:
    assert added_variance(1) == 1
    assert added_variance(2) == 2
    assert added_variance(4) == 1 + (2 + 3 + 4) / 4
