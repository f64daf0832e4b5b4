"""Explanations, rivals, sweeps and back-tests tell commplan's own kernels from what a user runs without them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest

from commplan.planner.answers.breakdown import breakdown
from commplan.planner.answers.difference import changes
from commplan.planner.answers.explanation import Explainer
from commplan.planner.answers.from_file import plan_of
from commplan.planner.answers.to_file import plan_setup
from commplan.planner.backtest.case import OpLatency, PlanName
from commplan.planner.backtest.judging import LIBRARY, contests, judge, key_of, measured_edges, predicted_us
from commplan.planner.backtest.named_plan import named_plan
from commplan.planner.backtest.quantities import NotComparableError, of_collective, of_plan
from commplan.planner.cost.collectives import CollectiveCosts
from commplan.planner.cost.terms import OneKernel
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.descriptions.setup import Setup
from commplan.planner.search.graph import Restriction
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.ops import Op
from commplan.planner.what_if.crossovers import crossovers
from commplan.planner.what_if.evaluation import OWN, PLAIN, PLAN, Evaluator

from ..tiny_setups import HIDDEN_SIZE, KERNELS, WITH_NORM, Machine, SetupFolder, dense_model, own_tables, table

pytestmark = pytest.mark.slow

TOKENS = 64
ALL = (*own_tables((2,)), *(table(op, 2, {1: 20.0, 1 << 40: 20.0}) for op in ("all_reduce", "all_gather")))


@pytest.fixture
def setup(folder: SetupFolder) -> Setup:
    return folder.setup(dense_model(), Machine(tables=ALL), tp=2)


def impls_of(plan) -> set[str | None]:
    return {edge.op.impl for edge in plan.edges if edge.op.kind.is_collective}


def test_an_explanation_says_what_the_wire_time_of_a_kernel_contains(setup):
    planner = ModePlanner(setup, "prefill")
    found = Explainer(planner, TOKENS, planner.best(TOKENS)).explain("attn_out", 0)
    inside = {(o.op.name, o.op.impl): o.wire_contains for o in (found.chosen, *found.alternatives)}
    assert inside["all_reduce", None] == inside["all_reduce", KERNELS] == inside["int8_all_reduce", None] == ()
    assert inside["int8_all_reduce", KERNELS] == ("quantize",)
    assert inside["all_reduce", WITH_NORM] == ("norm",)
    assert inside["int8_all_reduce", WITH_NORM] == ("quantize", "norm")
    for option in found.alternatives:
        if option.time_us is not None:
            assert all(option.breakdown[f"{part}_us"] == 0 for part in option.wire_contains)
            assert sum(option.breakdown.values()) == pytest.approx(option.time_us)


def test_the_parts_of_a_step_add_up_and_a_kernel_is_communication(setup):
    planner = ModePlanner(setup, "prefill")
    plan = planner.best(TOKENS)
    assert impls_of(plan) & {KERNELS, WITH_NORM}
    parts = breakdown(planner, plan, TOKENS)
    assert sum(parts.parts.values()) == pytest.approx(parts.step_us)
    assert parts.parts["quantize"] == 0
    assert parts.wire_bytes > 0


def test_a_plan_is_judged_against_the_library_too(setup):
    chosen = plan_setup(setup)
    (contest,) = contests(setup, chosen, "prefill", [TOKENS], "plan.yaml")
    assert impls_of(contest.plans[LIBRARY]) == {None}
    assert LIBRARY in contest.files
    planner = ModePlanner(setup, "prefill")
    samples = {
        name: {key_of(edge): [predicted_us(planner, edge, TOKENS)] * 5 for edge in measured_edges(plan)}
        for name, plan in contest.plans.items()
    }
    boundaries, outcome = judge(setup, contest, samples)
    assert all(boundary.error == pytest.approx(0) for boundary in boundaries)
    assert outcome.alternative != LIBRARY
    assert outcome.regret <= 1 + 0.005  # a range may lose that much


def test_without_such_tables_no_rival_is_added(folder):
    plain = folder.setup(dense_model(), Machine(), tp=2)
    for contest in contests(plain, plan_setup(plain), "prefill", [1, TOKENS, 4096], "plan.yaml"):
        assert LIBRARY not in contest.plans
    assert OWN not in Evaluator(plain).at("prefill", TOKENS).plans


def test_a_sweep_measures_speed_ups_against_the_library(setup):
    evaluator = Evaluator(setup)
    found = evaluator.at("prefill", TOKENS)
    assert impls_of(found.plans[PLAIN].plan) == {None}
    assert found.speed_up(PLAIN) == 1.0
    assert found.speed_up(OWN) > 1
    assert found.speed_up(PLAN) >= found.speed_up(OWN)
    assert found.fastest_uniform != PLAIN
    assert all(a.tokens < b.tokens for a, b in pairwise(crossovers(evaluator, "prefill", [1, 256, 4096])))


def test_a_faster_link_speeds_kernels_up_where_bytes_count_and_not_where_signals_do(folder):
    machine = Machine(tables=own_tables((2,)))  # of the library none: what a flat one reaches, no link changes
    own = folder.setup(dense_model(), machine, tp=2)
    faster = replace(load_setup(own.file, ("hardware.links.intra_node.bandwidth_gb_per_s=200",)), lent=())
    before, after = (CollectiveCosts(setup) for setup in (own, faster))
    for t in own.calibrations[0].calibration.tables:
        if t.impl == KERNELS:
            work = OneKernel(t.op, t.impl, t.dtype, "tp", 2, t.algorithm, t.attn_dp)
            rows = [size // (2 * HIDDEN_SIZE) for size in t.message_bytes]
            times = [[costs.one_kernel(work, r, HIDDEN_SIZE).total_us for r in rows] for costs in (before, after)]
            ratios = [new / old for old, new in zip(*times, strict=True)]
            assert ratios[0] == pytest.approx(1, abs=0.01)
            assert 0.5 <= ratios[-1] < 0.75
            assert ratios == sorted(ratios, reverse=True)
            assert after.one_kernel(work, 8, HIDDEN_SIZE).provenance == "formula"


def test_a_plan_by_kernels_is_refused_on_a_machine_whose_devices_do_not_read_each_other(folder, setup):
    chosen = plan_setup(setup)
    plan_of(ModePlanner(setup, "prefill"), chosen, TOKENS, "plan.yaml")
    elsewhere = ModePlanner(folder.setup(dense_model(), Machine(), tp=2), "prefill")
    with pytest.raises(InputError, match="peer_access of invented does not say that devices can"):
        plan_of(elsewhere, chosen, TOKENS, "plan.yaml")


def test_two_files_that_differ_in_the_kernel_differ(setup, folder):
    without = plan_setup(folder.setup(dense_model(), Machine(), tp=2))
    assert list(changes(plan_setup(setup), without))
    assert not list(changes(plan_setup(setup), plan_setup(setup)))


def test_published_figures_are_compared_with_libraries(setup):
    planner = ModePlanner(setup, "prefill")
    assert impls_of(named_plan(planner, {"attn_out": Op("all_reduce")}, TOKENS)) == {None}
    for strategy in ("all_reduce", "int8_all_reduce"):
        library = ModePlanner(setup, "prefill").uniform(strategy, TOKENS, own_kernels=False)
        assert of_plan(planner, "step_time", PlanName(strategy=strategy), TOKENS).value == library.step_us
    with pytest.raises(NotComparableError, match="works on rows"):
        of_collective(setup, OpLatency(op="all_reduce", impl=KERNELS, dtype="bf16", group_size=2, message_bytes=64))


def test_a_kernel_needs_less_workspace_than_int8_by_separate_passes(setup):
    planner = ModePlanner(setup, "prefill")
    peak = partial(_peak, planner)
    assert peak("int8_all_reduce", KERNELS, "gather") < peak("int8_all_reduce", None, "gather")
    assert peak("int8_all_reduce", KERNELS, "two_shot") < peak("int8_all_reduce", None, "two_shot")
    assert peak("all_reduce", KERNELS) > peak("all_reduce", None)  # symmetric buffers beside the message


def _peak(planner: ModePlanner, name: str, impl: str | None, algorithm: str | None = None) -> int:
    (edge,) = {
        e.op: e
        for e in planner.graph(Restriction(policy=False)).edges
        if e.boundary == "attn_out" and e.op == Op(name, algorithm=algorithm, impl=impl)
    }.values()
    return planner.builder.memory.peak_bytes(edge.boundary, edge.op, edge.before, edge.after, edge.shape, 4096)
