"""Machines without tables borrow those of the nearest link, read at sizes that take their own link as long."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from commplan.planner.cost.collectives import CollectiveCosts
from commplan.planner.cost.op_costs import OpCosts
from commplan.planner.descriptions.base import build
from commplan.planner.descriptions.hardware import Hardware
from commplan.planner.descriptions.lending import Lender, Lenders, lenders_of
from commplan.planner.descriptions.loader import find, load_hardware, load_setup
from commplan.planner.strategy.layout import Parallelism
from commplan.planner.strategy.yaml_file import read_mapping

from ..tiny_setups import Machine, dense_model, table

CONFIGS = Path(__file__).parents[3] / "configs"
LENDERS = build(Lenders, read_mapping(CONFIGS / "lending" / "lenders.yaml"), "lenders.yaml").lenders
WIDER = Machine(link_gb_per_s=600.0, link_efficiency=0.75)  # a third more than an H200 reaches


def h200_us(op: str, ranks: int, size: int, impl: str = "nccl") -> float:
    (found,) = (
        t
        for t in read_mapping(CONFIGS / "calibrations" / "h200-sxm.yaml")["tables"]
        if (t["op"], t["impl"], t["group_size"], t["dtype"]) == (op, impl, ranks, "bf16")
    )
    return dict(zip(found["message_bytes"], found["latency_us"], strict=True))[size]


@pytest.mark.parametrize("lender", LENDERS, ids=lambda lender: lender.calibration)
def test_a_lender_is_what_its_machine_is(lender: Lender) -> None:
    path = find(lender.machine, "hardware", None, "hardware")
    machine = build(Hardware, read_mapping(path), str(path))
    link = machine.links.intra_node
    assert (lender.vendor, lender.topology) == (machine.vendor, link.topology)
    assert lender.reached_gb_per_s == pytest.approx(link.bandwidth_gb_per_s.value * link.efficiency.value, rel=0.001)
    assert lender.share_by_ranks == {size: share.value for size, share in (link.share_by_ranks or {}).items()}
    assert lender.calibration in {use.file for use in machine.calibrations if use.transferred_because is None}
    tables = read_mapping(find(lender.calibration, "calibrations", None, "calibration"))["tables"]
    assert set(lender.ranks) == {t["group_size"] for t in tables}


@pytest.mark.parametrize("size", [1 << 20, 16 << 20, 64 << 20])
def test_a_third_more_bandwidth_takes_as_long_for_a_third_more_bytes(folder, size: int) -> None:
    setup = folder.setup(dense_model(), WIDER, tp=8, borrows=True)
    found = CollectiveCosts(setup).collective("all_gather", "nccl", "bf16", "tp", size * 4 / 3)
    assert found.total_us == pytest.approx(h200_us("all_gather", 8, size), rel=0.1)  # smoothing
    assert found.provenance == "table (transferred)"
    assert "its sizes times 1.33" in found.source


def test_a_table_of_the_machine_itself_comes_first(folder) -> None:
    own = Machine(
        link_gb_per_s=600.0, link_efficiency=0.75, tables=(table("all_gather", 8, {1024: 7.0, 1 << 30: 7.0}),)
    )
    costs = CollectiveCosts(folder.setup(dense_model(), own, tp=8, borrows=True))
    assert costs.collective("all_gather", "nccl", "bf16", "tp", 1 << 20).total_us == pytest.approx(7.0)
    assert costs.collective("reduce_scatter", "nccl", "bf16", "tp", 1 << 20).provenance == "table (transferred)"


@pytest.mark.parametrize(
    "machine",
    [
        Machine(link_gb_per_s=10.0),  # too far
        Machine(link_gb_per_s=450.0, topology="full_mesh"),
        Machine(link_gb_per_s=450.0, vendor="ascend"),
    ],
    ids=["bandwidth", "topology", "vendor"],
)
def test_nothing_is_borrowed_of_another_kind_of_link(folder, machine: Machine) -> None:
    assert folder.setup(dense_model(), machine, tp=8, borrows=True).lent == ()


def test_a_pair_borrows_by_what_pairs_reach_where_the_tree_is_shared(folder) -> None:
    """Two L40S reach 4.1 times what four do, 20 GB/s: a pair of 29 is nearer to two RTX PRO 6000s, at 32."""
    pair = Machine(link_gb_per_s=29.0, topology="pcie", devices_per_node=2)
    ((lender, scale),) = lenders_of(folder.setup(dense_model(), pair, tp=2).hardware, Parallelism(tp=2))
    assert lender.calibration == "rtx-pro-6000"
    assert scale == pytest.approx(29 / (23.04 * 1.4))


@pytest.mark.parametrize(("ranks", "reached", "scale"), [(2, 19.68, 0.82), (4, 23.5, 0.5), (8, 23.04, 0.5)])
def test_a_borrowed_table_is_explained_by_what_a_group_of_this_size_reaches_there(ranks, reached, scale) -> None:
    """Two L40S reach 19.7 GB/s; 4.8 is what four do."""
    chosen = ("hardware=rtx-4090-8", "model=qwen3-8b", f"parallelism.tp={ranks}")
    ((said, ratio),) = (
        (used.transferred_because, used.scale) for used in load_setup("qwen3-32b-l40s-tp4", chosen).lent
    )
    assert f"; collectives over {ranks} ranks reach {reached:g} GB/s on it; its sizes times {scale:g}" in said
    here = load_hardware("rtx-4090-8").links.intra_node
    assert ratio * reached == pytest.approx(32 * here.efficiency_of(ranks), rel=0.001), "what they reach here"


def test_what_is_borrowed_is_no_part_of_the_machines_fingerprint(folder) -> None:
    setup = folder.setup(dense_model(), WIDER, tp=8, borrows=True)
    assert setup.lent
    assert setup.fingerprints == replace(setup, lent=()).fingerprints


def test_only_collectives_are_lent(folder) -> None:
    """A device computes at its own speed: kernel and GEMM tables of two H200s stay theirs."""
    machine = Machine(link_gb_per_s=450.0, link_efficiency=0.75)
    lent, alone = (folder.setup(dense_model(), machine, tp=2, borrows=borrows) for borrows in (True, False))
    assert any(used.calibration.gemms for used in lent.lent)
    assert OpCosts(lent, "prefill").device.gemm(64, 256, 768) == OpCosts(alone, "prefill").device.gemm(64, 256, 768)
