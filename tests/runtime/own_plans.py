"""Plans whose ops are performed by collectives of our own, made of the plans that `legal_plans` knows."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from commplan.planner.strategy.ops import Op
from commplan.runtime.kernels.peer_impls import TRITON, TRITON_NORM

from .legal_plans import ALL, Edge, Plan, World

BARE = {
    "all_reduce": "all_reduce",
    "int8_all_reduce": "int8_all_reduce",
    "reduce_scatter": "reduce_scatter",
    "all_gather": "all_gather",
    "latent_all_gather": "all_gather",
    "all_reduce_all_gather": "gather_sum",
    "reduce_scatter_all_reduce": "scatter_sum",
}
"""The method of Peers that performs an op."""
SUMS = ("all_reduce", "int8_all_reduce", "reduce_scatter")
Choose = Callable[[list[str | None]], str | None]


def impls_of(world: World, edge: Edge) -> list[str | None]:
    """Who can perform an op: the library (None), and what is ours."""
    if edge.op.name not in BARE:
        return [None]
    partial = ALL if edge.boundary == "mlp_out" else world.attention
    sliced = edge.op.name != "reduce_scatter" and edge.after.hidden > partial
    with_norm = edge.op.name in SUMS and edge.boundary in ("attn_out", "mlp_out") and not sliced
    return [None, TRITON, *([TRITON_NORM] if with_norm else [])]


def with_impls(world: World, plan: Plan, choose: Choose) -> Plan:
    """The plan with an impl at every op that has several."""
    return tuple(replace(edge, op=replace(edge.op, impl=choose(impls_of(world, edge)))) for edge in plan)


def at_random(seed: int) -> Choose:
    return random.Random(seed).choice


def most_fused(choices: list[str | None]) -> str | None:
    return choices[-1]


def methods(plan: Plan) -> list[str]:
    """The calls of Peers in one forward."""
    return [_method(edge.op) for edge in plan if edge.op.impl is not None]


def _method(op: Op) -> str:
    return BARE[op.name] + ("_norm" if op.impl == TRITON_NORM else "")
