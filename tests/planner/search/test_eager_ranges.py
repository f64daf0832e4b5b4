"""Ranges of an eager forward: readable plans, and no loss that a file does not record."""

from __future__ import annotations

from itertools import pairwise

import pytest

from commplan.planner.search.planning import ModePlanner

from ..named_plans import planner_of
from ..tiny_setups import Machine, dense_model, table

# Sums of 200 us or two halves of 60: the device wants halves, the host fewer calls, and layers take as long on either.
EVEN = Machine(
    bf16_tflops=0.5,
    tables=(
        table("all_reduce", 2, {1: 200.0, 1 << 40: 200.0}),
        *(table(op, 2, {1: 60.0, 1 << 40: 60.0}) for op in ("all_gather", "reduce_scatter", "all_to_all")),
    ),
)


def changes(planner: ModePlanner, tokens: int, plan) -> int:
    ops = [tuple(str(edge.op) for edge in layer) for layer in plan.layers]
    return sum(a != b for a, b in pairwise(ops))


def test_no_range_of_a_shipped_plan_alternates_layers_to_fill_the_slack_of_the_host():
    """The exact optimum does, here: layers one by one, each other one with another op."""
    planner = planner_of("deepseek-r1-2xh200nodes-tp16", "prefill")
    assert changes(planner, 3100, planner.best(3100)) > 20
    for chosen in planner.ranges():
        assert changes(planner, chosen.last, chosen.plan) <= 6


def test_what_a_range_loses_against_the_optimum_that_alternates_is_recorded():
    planner = planner_of("deepseek-r1-2xh200nodes-tp16", "prefill")
    chosen = next(r for r in planner.ranges() if r.first <= 3100 <= r.last)
    lost = planner.step_us(chosen.plan, 3100) / planner.step_us(planner.best(3100), 3100) - 1
    assert 0 < lost <= chosen.worst_loss + 0.001


def test_the_longer_side_of_every_segment_is_what_a_step_takes(folder):
    planner = ModePlanner(folder.setup(dense_model(3), EVEN, tp=2, loosest="reordered"), "prefill")
    for tokens in (1, 63, 64, 500, 4096):
        plan, pricer = planner.best(tokens), planner.pricer
        total = planner.fixed_ps(tokens)
        for segment, edges in (
            ("embed_out", [plan.embed_out]),
            *zip(planner.graph().layers, plan.layers, strict=True),
            ("head_in", [plan.head_in]),
        ):
            device, host = (sum(of(edge, tokens) for edge in edges) for of in (pricer.price_ps, pricer.host_ps))
            behind = pricer.segment(segment, tokens).behind_ps
            total += device if segment == "head_in" else max(device, host + behind)
        assert planner.step_us(plan, tokens) == pytest.approx(total / 1e6, rel=1e-12)
