"""Where no table stands, a collective costs what its algorithm moves over the links there are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from commplan.planner.cost.collectives import CollectiveCosts
from commplan.planner.cost.links import bandwidth_bytes_per_us, placement
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.layout import Parallelism

from ..tiny_setups import Machine, dense_model, table

SWITCH = Machine(link_gb_per_s=100, hop_us=2, call_us=5)  # 100 000 bytes per us
MEGABYTE = 1_000_000


def costs(folder, machine: Machine = SWITCH, **split: int) -> CollectiveCosts:
    return CollectiveCosts(folder.setup(dense_model(), machine, **split))


def time(prices: CollectiveCosts, op: str, size: float, group: str = "tp") -> float:
    return prices.collective(op, "nccl", "bf16", group, size).total_us


@pytest.mark.parametrize("tp", [2, 4, 8])
@pytest.mark.parametrize("op", ["all_gather", "reduce_scatter", "all_to_all"])
def test_a_gather_or_scatter_moves_all_shards_but_ones_own(folder, op, tp):
    estimate = costs(folder, tp=tp).collective(op, "nccl", "bf16", "tp", 8 * MEGABYTE)
    assert estimate.wire_bytes == pytest.approx((tp - 1) / tp * 8 * MEGABYTE)
    assert estimate.time_us == pytest.approx(estimate.wire_bytes / 100_000)
    steps = 1 if op == "all_to_all" else tp - 1  # NCCL goes round a ring
    assert estimate.launch_us == pytest.approx(5 + 2 * steps)


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_the_smallest_all_reduce_grows_with_the_ranks_as_ncclss_does(ranks):
    """Without its tables an H200 is priced as measured: 6.0, 9.5 and 16.0 us."""
    setup = load_setup("qwen3-32b-h200-tp2", (f"parallelism.tp={ranks}", "hardware=h200-8"))
    bare = CollectiveCosts(replace(setup, calibrations=(), lent=()))
    measured = {2: 6.0, 4: 9.5, 8: 16.0}[ranks]
    assert time(bare, "all_reduce", 512) == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize("tp", [4, 8])
def test_an_all_reduce_is_a_scatter_and_a_gather_in_one_call(folder, tp):
    prices = costs(folder, tp=tp)
    whole, scatter, gather = (
        prices.collective(op, "nccl", "bf16", "tp", 64 * MEGABYTE)
        for op in ("all_reduce", "reduce_scatter", "all_gather")
    )
    assert whole.wire_bytes == pytest.approx(scatter.wire_bytes + gather.wire_bytes)
    assert whole.total_us == pytest.approx(scatter.total_us + gather.total_us - 5)


@pytest.mark.parametrize("tp", [4, 8])
def test_a_library_that_goes_straight_reduces_small_messages_in_one_shot_and_large_ones_in_two(folder, tp):
    """One shot saves a hop of 2 us and receives (N-1) - 2(N-1)/N messages more."""
    prices = costs(folder, replace(SWITCH, vendor="ascend"), tp=tp)
    crossing = 2 * 100_000 / ((tp - 1) - 2 * (tp - 1) / tp)
    for size, hops, messages in ((0.9 * crossing, 1, tp - 1), (1.1 * crossing, 2, 2 * (tp - 1) / tp)):
        estimate = prices.collective("all_reduce", "hccl", "bf16", "tp", size)
        assert estimate.launch_us == pytest.approx(5 + 2 * hops)
        assert estimate.time_us == pytest.approx(messages * size / 100_000)


def test_a_half_without_a_table_is_scaled_as_its_whole_is(folder):
    """An all-reduce measured at three times its formula: the reduce-scatter beside it is no bargain."""
    formula = costs(folder, tp=4)
    size = 64 * MEGABYTE
    measured = {1024: 3 * time(formula, "all_reduce", 1024), size: 3 * time(formula, "all_reduce", size)}
    beside = costs(folder, replace(SWITCH, tables=(table("all_reduce", 4, measured),)), tp=4)
    assert time(beside, "reduce_scatter", size) == pytest.approx(3 * time(formula, "reduce_scatter", size))
    estimate = beside.collective("reduce_scatter", "nccl", "bf16", "tp", size)
    assert (estimate.provenance, "times 3.00 as all_reduce over 4" in estimate.source) == ("formula", True)


def test_ranks_without_a_table_are_scaled_as_the_nearest_that_have_one(folder):
    size = 64 * MEGABYTE
    formula = {tp: costs(folder, tp=tp) for tp in (4, 8)}
    measured = {1024: 2 * time(formula[4], "all_gather", 1024), size: 2 * time(formula[4], "all_gather", size)}
    beside = costs(folder, replace(SWITCH, tables=(table("all_gather", 4, measured),)), tp=8)
    assert time(beside, "all_gather", size) == pytest.approx(2 * time(formula[8], "all_gather", size))


def test_a_table_of_more_ranks_than_a_node_has_is_of_a_group_that_spans_nodes(folder):
    spans = replace(
        SWITCH, devices_per_node=4, num_nodes=2, tables=(table("all_gather", 8, {1024: 70.0, 1 << 30: 70.0}),)
    )
    assert time(costs(folder, spans, tp=8), "all_gather", MEGABYTE) == pytest.approx(70)


def test_a_pair_on_a_full_mesh_of_eight_has_one_link():
    link = load_setup("qwen3-32b-a2-tp2").hardware.links.intra_node
    assert link.bandwidth_gb_per_s.value == 196
    efficiency = link.efficiency.value * 1e3
    assert bandwidth_bytes_per_us(link, 2, 8) == pytest.approx(28 * efficiency)
    assert bandwidth_bytes_per_us(link, 4, 8) == pytest.approx(3 * 28 * efficiency)
    assert bandwidth_bytes_per_us(link, 8, 8) == pytest.approx(196 * efficiency)


def test_a_pair_on_a_switch_has_the_whole_bandwidth(folder):
    pair, mesh = (costs(folder, replace(SWITCH, topology=t), tp=2) for t in ("switch", "full_mesh"))
    size = 64 * MEGABYTE
    assert time(mesh, "all_gather", size) - 7 == pytest.approx(7 * (time(pair, "all_gather", size) - 7))


def test_across_nodes_the_shard_of_a_node_travels_over_the_slower_links(folder):
    machine = replace(SWITCH, devices_per_node=4, num_nodes=2, inter_node_gb_per_s=10)
    across = costs(folder, machine, tp=8)
    inside = costs(folder, replace(SWITCH, devices_per_node=4), tp=4)
    size = 64 * MEGABYTE
    between = 5 + 2 + size / 4 / 2 / 10_000  # half of a quarter of the message, at 10 GB/s
    assert time(across, "all_gather", size) == pytest.approx(time(inside, "all_gather", size) + between)
    assert across.collective("all_gather", "nccl", "bf16", "tp", size).wire_bytes == pytest.approx(size * 7 / 8)


def test_a_dp_group_is_a_run_of_neighbours_and_the_dp_axis_strides_over_it():
    hardware = load_setup("deepseek-r1-2xh200nodes-tp16").hardware
    p = Parallelism(16, 4)
    assert vars_of(placement("tp", p, hardware)) == (8, 2)
    assert vars_of(placement("attn_tp", p, hardware)) == (4, 1)
    assert vars_of(placement("attn_dp", p, hardware)) == (2, 2)


def vars_of(where) -> tuple[int, int]:
    return where.per_node, where.num_nodes


def test_nothing_travels_in_a_group_of_one_or_without_bytes(folder):
    prices = costs(folder, tp=4, attn_dp=4)
    assert time(prices, "all_reduce", MEGABYTE, "attn_tp") == 0
    assert time(prices, "all_reduce", 0) == 0


def test_reduce_scatter_is_no_constant_fraction_of_all_reduce():
    ratios = []
    for name in ("qwen3-235b-h200-tp8", "qwen3-32b-h200-tp2"):
        prices = CollectiveCosts(load_setup(name))
        for size in (64 * 1024, MEGABYTE, 16 * MEGABYTE, 256 * MEGABYTE):
            ratios.append(time(prices, "reduce_scatter", size) / time(prices, "all_reduce", size))
    assert all(0.4 < ratio < 1 for ratio in ratios)
    assert max(ratios) - min(ratios) > 0.15


# ---- fused peer-to-peer kernels ----------------------------------------------------------------------------


def test_a_fused_kernel_reads_partials_at_once_or_sums_a_part_first(folder):
    prices = costs(folder, tp=8, attn_dp=2)  # DP groups of 4
    for rows, rounds in ((1_000, 2), (10 * MEGABYTE, 3)):
        estimate = prices.peer_to_peer("all_reduce_all_gather", 2 * rows, rows)
        at_once, in_parts = 4 * 2 * rows - rows, 3 / 4 * rows + 7 / 8 * 2 * rows
        assert estimate.wire_bytes == pytest.approx(at_once if rounds == 2 else in_parts)
        assert estimate.launch_us == pytest.approx(2 + 2 * rounds)  # one launch, and the hops of its signals


def test_fused_kernels_stop_at_the_edge_of_a_node(folder):
    prices = costs(folder, replace(SWITCH, devices_per_node=4, num_nodes=2), tp=8, attn_dp=2)
    with pytest.raises(InputError):
        prices.peer_to_peer("all_reduce_all_gather", 1e6, 1e6)


def test_an_overridden_link_is_no_longer_priced_by_a_table_of_another():
    plain = load_setup("qwen3-235b-h200-tp8")
    slower = load_setup("qwen3-235b-h200-tp8", ("hardware.links.intra_node.bandwidth_gb_per_s=45",))
    before, after = (
        CollectiveCosts(s).collective("all_gather", "nccl", "bf16", "tp", 64 * MEGABYTE) for s in (plain, slower)
    )
    assert before.provenance == "table"
    assert after.provenance in ("formula", "assumed")
    assert after.total_us > 5 * before.total_us
