"""Kernels in one launch without a table: launch, steps, bytes; offered where the link lets them, marked as formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest

from commplan.planner.cost.collectives import CollectiveCosts
from commplan.planner.cost.terms import OneKernel
from commplan.planner.executors.launches import ONE_LAUNCH, OneLaunch
from commplan.planner.search.graph import ANY, Restriction
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategies import strategies

from ..tiny_setups import HIDDEN_SIZE, KERNELS, WITH_NORM, Machine, dense_model, table

MIB = 1 << 20
GB_PER_S, HOP = 100.0, 1.0
REACHING = Machine(peer_access=True, link_efficiency=0.5)


def price(folder, impl: str, tp: int, size: float, machine: Machine = REACHING) -> float:
    costs = CollectiveCosts(folder.setup(dense_model(), machine, tp=tp, executor="plan_only"))
    return costs.collective("all_reduce", impl, "bf16", "tp", size).total_us


def by_hand(figures: OneLaunch, tp: int, steps: int, received: float) -> float:
    """Launch, one more wait for each rank beyond two, steps, and bytes at a multiple of what the library reaches."""
    rate = GB_PER_S * 1e3 * 0.5 * figures.bandwidth
    return figures.launch_us + figures.rank_us * (tp - 2) + steps * HOP + received / rate


@pytest.mark.parametrize("tp", [2, 4, 8])
@pytest.mark.parametrize("size", [512, 64 * MIB])
def test_a_kernel_takes_the_cheaper_of_one_shot_and_two(folder, tp, size):
    figures = ONE_LAUNCH["custom_one_shot"]
    one = by_hand(figures, tp, 1, (tp - 1) * size)
    two = by_hand(figures, tp, 2, 2 * (tp - 1) / tp * size)
    assert price(folder, "custom_one_shot", tp, size) == pytest.approx(min(one, two))
    assert (one < two) == (size == 512 or tp == 2)


def test_a_switch_that_adds_moves_the_message_once(folder):
    figures = ONE_LAUNCH["multimem"]
    assert price(folder, "multimem", 8, 64 * MIB) == pytest.approx(by_hand(figures, 8, 2, 64 * MIB))


def test_a_kernel_reaches_a_multiple_of_what_the_librarys_table_says_that_the_link_gives(folder):
    """An all-gather of 1 GiB that takes four times as long as the link's figures say: so does every kernel."""
    gather = 3 / 4 * 1024 * MIB / (GB_PER_S * 1e3 * 0.5) * 4
    slow = Machine(
        peer_access=True, link_efficiency=0.5, tables=(table("all_gather", 4, {1024: 10.0, 1024 * MIB: gather}),)
    )
    fast = price(folder, "torch_one_shot", 4, 256 * MIB)
    assert price(folder, "torch_one_shot", 4, 256 * MIB, slow) / fast == pytest.approx(4, rel=0.01)


def test_own_kernels_are_offered_by_formula_where_devices_reach_each_other_and_marked_so(folder):
    planner = ModePlanner(folder.setup(dense_model(), REACHING, tp=4), "decode")
    plan = planner.best(1)
    assert {edge.op.impl for edge in plan.edges if edge.boundary in ("attn_out", "mlp_out")} == {WITH_NORM}
    wire = [planner.costs.estimate(term, 1) for edge in plan.edges for term in edge.terms if term.category == "wire"]
    assert {estimate.provenance for estimate in wire} == {"assumed"}  # as the invented link is
    assert all(estimate.source.startswith("one launch, figures of ") for estimate in wire)


def test_a_time_by_formula_is_no_surer_than_the_rate_of_the_link_unless_a_table_gives_that(folder):
    gathers = (table("all_gather", 4, {1: 1.0, 1 << 30: 9000.0}),)
    for tables, provenance in (((), "assumed"), (gathers, "formula")):
        costs = CollectiveCosts(folder.setup(dense_model(), replace(REACHING, tables=tables), tp=4))
        found = costs.one_kernel(OneKernel("all_reduce", WITH_NORM, "bf16", "tp", 2), 64, 256)
        assert found.provenance == provenance


def test_a_link_that_does_not_say_so_has_no_kernel_that_reads_its_peers(folder):
    setup = folder.setup(dense_model(), Machine(), tp=4)
    used = {edge.op.impl for edge in ModePlanner(setup, "decode").graph(Restriction(policy=False)).edges}
    assert not used & {KERNELS, WITH_NORM}


def test_why_such_a_kernel_is_not_used_names_the_field(folder):
    planner = ModePlanner(folder.setup(dense_model(), Machine(), tp=4), "decode")
    offered = planner.builder.offers.candidates("attn_out", tuple(strategies().values()), ANY)
    reasons = {op.impl: reason for op, reason in offered if op.name == "all_reduce"}
    assert reasons[None] is None
    assert "links.intra_node.peer_access" in reasons[WITH_NORM]


def test_the_plain_yardstick_of_an_executor_that_is_no_server_is_the_library(folder):
    planner = ModePlanner(folder.setup(dense_model(), REACHING, tp=4, executor="plan_only"), "decode")
    assert {edge.op.impl for edge in planner.plain(1).edges} == {None}
    assert planner.best(1).embed_out.op.impl is not None


def test_what_a_server_runs_by_itself_is_no_choice_of_a_plan(folder):
    planner = ModePlanner(folder.setup(dense_model(), REACHING, tp=4, executor="sglang"), "decode")
    fused = "flashinfer_fused"
    assert fused not in {edge.op.impl for edge in planner.graph(Restriction(policy=False)).edges}
    assert fused in {edge.op.impl for edge in planner.graph(Restriction(policy=False, stock=True)).edges}


def test_every_figure_says_where_it_was_measured():
    assert all(figures.source and figures.algorithms for figures in ONE_LAUNCH.values())


def test_int8_pays_for_every_time_that_a_row_is_quantised(folder):
    planner = ModePlanner(folder.setup(dense_model(), REACHING, tp=4), "decode")
    times = {}
    for edge in planner.graph(Restriction(policy=False)).edges:
        if edge.op.impl == KERNELS and edge.boundary == "attn_out" and edge.op.residual is None:
            (wire,) = [t for t in edge.terms if t.category == "wire"]
            times[edge.op.algorithm] = planner.costs.estimate(wire, 1).launch_us
    quantised = ONE_LAUNCH[KERNELS].quantize_us * HIDDEN_SIZE / 1024
    assert times["gather"] - times[None] == pytest.approx(quantised)
    assert times["two_shot"] - times["gather"] == pytest.approx(quantised + HOP)
