"""A hand-over costs what both streams take over the link between two stages, by the shorter way."""

from __future__ import annotations

import pytest

from commplan.planner.answers.breakdown import breakdown
from commplan.planner.cost.hand_over import HandOverCosts
from commplan.planner.cost.op_costs import OpCosts
from commplan.planner.cost.terms import HandOver
from commplan.planner.search.cross_check import cross_check
from commplan.planner.search.graph import Restriction
from commplan.planner.search.planning import ModePlanner

from ..tiny_setups import HIDDEN_SIZE, Machine, dense_model, latent_model

# 100 000 bytes per us inside a node, 25 000 between nodes; 7 us for a call and a hop.
NODE = Machine(devices_per_node=8, link_gb_per_s=100, hop_us=2, call_us=5)
NODES = Machine(devices_per_node=4, num_nodes=2, link_gb_per_s=100, hop_us=2, call_us=5)
SHARD = HandOver("nccl", "bf16", None, 2.0)
WHOLE = HandOver("nccl", "bf16", "tp", 2.0)


def costs(folder, machine=NODE, **parallelism) -> HandOverCosts:
    setup = folder.setup(dense_model(8), machine, parallelism=parallelism, executor="plan_only")
    return HandOverCosts(setup, OpCosts(setup, "prefill").collectives)


@pytest.mark.parametrize(("machine", "rate"), [(NODE, 100_000), (NODES, 25_000)])
def test_two_shards_cross_the_link_between_the_stages(folder, machine, rate):
    """Two stages of four: on a node of eight over its link, on two nodes of four over that between nodes."""
    estimate = costs(folder, machine, tp=4, pp=2).estimate(SHARD, 1_000_000)
    assert estimate.total_us == pytest.approx(2 * 1_000_000 / rate + 7)
    assert estimate.wire_bytes == 2 * 1_000_000


def test_rows_that_all_ranks_hold_cross_in_slices_where_that_is_shorter(folder):
    prices = costs(folder, NODES, tp=4, pp=2)
    small, large = prices.estimate(WHOLE, 1000), prices.estimate(WHOLE, 1_000_000)
    assert small.total_us == pytest.approx(2 * 1000 / 25_000 + 7)
    gathered = 0.75 * 1_000_000 / 100_000 + 5 + 3 * 2  # a ring of four inside the node, for each stream
    assert large.total_us == pytest.approx(2 * 250_000 / 25_000 + 7 + 2 * gathered)
    assert "in slices, gathered behind it" in large.source and "slices" not in small.source


def test_a_shard_is_never_dearer_than_the_rows_it_is_of(folder):
    prices = costs(folder, NODES, tp=4, pp=2)
    for size in (1000, 100_000, 10_000_000):
        assert prices.estimate(SHARD, size / 4).total_us < prices.estimate(WHOLE, size).total_us


def test_boundaries_inside_nodes_and_between_them_add_up(folder):
    """Four stages of two on two nodes of four: two hand-overs inside, one between."""
    estimate = costs(folder, NODES, tp=2, pp=4).estimate(SHARD, 1_000_000)
    assert 3 * estimate.total_us == pytest.approx(2 * (20 + 7) + (80 + 7))


def test_on_a_full_mesh_two_devices_have_one_of_its_links(folder):
    mesh = Machine(devices_per_node=8, topology="full_mesh", link_gb_per_s=70, hop_us=2, call_us=5)
    assert costs(folder, mesh, tp=4, pp=2).estimate(SHARD, 1_000_000).total_us == pytest.approx(200 + 7)


@pytest.mark.parametrize(("tp", "pp"), [(1, 2), (2, 2), (4, 2), (1, 4), (2, 4)])
def test_a_step_is_the_whole_forwards_and_its_hand_overs(folder, tp, pp):
    """Under plain all-reduce, against the same forward in one stage of as many ranks."""

    def planner(stages: int) -> ModePlanner:
        split = {"tp": tp, "pp": stages}
        setup = folder.setup(dense_model(8), NODE, parallelism=split, executor="plan_only", launch="graph")
        return ModePlanner(setup, "prefill")

    one, more = planner(1), planner(pp)
    tokens, work = 1024, HandOver("nccl", "bf16", "tp", 2.0)
    each = HandOverCosts(more.setup, more.costs.collectives).estimate(work, tokens * HIDDEN_SIZE * 2)
    steps = [planner.step_us(planner.library(tokens), tokens) for planner in (one, more)]
    assert steps[1] - steps[0] == pytest.approx((pp - 1) * each.total_us, abs=1e-3)
    wires = [breakdown(planner, planner.library(tokens), tokens).wire_bytes for planner in (one, more)]
    assert wires[1] - wires[0] == pytest.approx((pp - 1) * each.wire_bytes)


@pytest.mark.parametrize("attn_dp", [1, 2, 4])
@pytest.mark.parametrize("mode", ["prefill", "decode"])
def test_networkx_finds_no_cheaper_plan_over_stages(folder, attn_dp, mode):
    split = {"tp": 4, "attn_dp": attn_dp, "pp": 2}
    setup = folder.setup(latent_model(6), NODES, parallelism=split, executor="plan_only")
    planner = ModePlanner(setup, mode)
    for tokens in (1, 7, 64, 250):
        ours, theirs = cross_check(planner, tokens)
        assert ours == theirs
    for strategy in ("all_reduce", "tp_sp", "int8_all_reduce", *(["mixed_comm"] if 1 < attn_dp < 4 else [])):
        assert planner.best(64, Restriction(strategies=(strategy,))).layers
