"""Prices of sums in one kernel in any wire format: by tables, else by launch, steps, bytes and passes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from commplan.planner.cost.collectives import CollectiveCosts
from commplan.planner.cost.terms import OneKernel
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.executors.launches import ONE_LAUNCH

from ..tiny_setups import HIDDEN_SIZE, Machine, dense_model, table

NAME = "quantized_all_reduce"
GB_PER_S, HOP, MEMORY = 100.0, 1.0, 1000.0
REACHING = Machine(peer_access=True, link_efficiency=0.5, memory_gb_per_s=MEMORY)


def work(impl: str, wire: str, group: str = "32") -> OneKernel:
    return OneKernel(NAME, impl, "bf16", "tp", 2, "two_shot", None, wire, group)


def costs_of(folder, machine: Machine = REACHING, tp: int = 4) -> CollectiveCosts:
    return CollectiveCosts(folder.setup(dense_model(), machine, tp=tp, executor="plan_only"))


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_a_quantised_sum_is_a_launch_two_steps_its_bytes_and_passes_over_memory(folder, tp):
    figures, rows = ONE_LAUNCH["quick_reduce"], 4096
    elements = rows * HIDDEN_SIZE
    received = 2 * (tp - 1) / tp * (elements * 6 / 8 + elements / 32 * 2)
    wire_us = received / (GB_PER_S * 1e3 * 0.5 * figures.bandwidth)
    passes_us = figures.quantize_passes * elements * 2 / (MEMORY * 0.8 * 1e3)
    fixed = figures.launch_us + figures.rank_us * (tp - 2) + 2 * HOP + figures.quantize_floor_us
    found = costs_of(folder, tp=tp).one_kernel(work("quick_reduce", "int6"), rows, HIDDEN_SIZE)
    assert found.total_us == pytest.approx(wire_us + passes_us + fixed)
    assert found.wire_bytes == pytest.approx(received)
    assert figures.source in found.source


def test_fewer_bits_and_coarser_groups_are_never_dearer_and_more_ranks_never_cheaper(folder):
    def us(wire: str, group: str = "32", tp: int = 4) -> float:
        return costs_of(folder, tp=tp).one_kernel(work("quick_reduce", wire, group), 4096, HIDDEN_SIZE).total_us

    assert us("int4") < us("int4_spikes") < us("int6") < us("int8") == us("fp8_e4m3")
    assert us("int8", "256") < us("int8", "64") < us("int8", "32")
    assert us("int8", tp=2) < us("int8", tp=4) < us("int8", tp=8)


def test_a_table_is_of_one_format_and_group(folder):
    measured = table(f"{NAME}.two_shot", 4, {1024: 5.0, 1 << 30: 500.0}, impl="quick_reduce", wire="int6")
    known = costs_of(folder, replace(REACHING, tables=(measured | {"scale_group": "32"},)))
    rows = (1 << 30) // (2 * HIDDEN_SIZE)
    assert known.one_kernel(work("quick_reduce", "int6"), rows, HIDDEN_SIZE).total_us == pytest.approx(500.0)
    for other in (work("quick_reduce", "int8"), work("quick_reduce", "int6", "64")):
        assert "one launch, figures of" in known.one_kernel(other, rows, HIDDEN_SIZE).source


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"wire": "int6"}, "scale_group"),
        ({"scale_group": "32"}, "wire"),
        ({"wire": "int7", "scale_group": "32"}, "wire"),
        ({"wire": "int6", "scale_group": "48"}, "scale_group"),
    ],
)
def test_a_table_that_does_not_say_its_format_is_refused(folder, fields, field):
    spoiled = table(f"{NAME}.two_shot", 4, {1024: 5.0, 1 << 30: 500.0}, impl="quick_reduce", **fields)
    with pytest.raises(Exception, match=rf"tables\[0\].*{field}"):
        costs_of(folder, replace(REACHING, tables=(spoiled,)))


def test_an_ordinary_table_has_no_format(folder):
    spoiled = table("all_reduce", 4, {1024: 5.0, 1 << 30: 500.0}, wire="int6")
    with pytest.raises(Exception, match="all_reduce has none"):
        costs_of(folder, replace(REACHING, tables=(spoiled,)))


def test_a_kernel_of_which_no_time_is_published_is_assumed(folder):
    found = costs_of(folder).one_kernel(work("trtllm_low_precision", "fp8_e4m3", "token"), 4096, HIDDEN_SIZE)
    assert found.provenance == "assumed"
    assert "no time is published" in found.source


@pytest.mark.parametrize(
    ("wire", "size", "published"),
    [("int4", 16 << 20, 132.14), ("int6", 16 << 20, 186.77), ("fp8_e4m3", 64 << 20, 831.08)],
)
def test_on_two_mi300x_the_published_table_is_the_price_and_the_formula_within_a_third_of_it(wire, size, published):
    setup = load_setup("qwen3-32b-h200-tp2", ("hardware=mi300x-8", "executor=plan_only"))
    rows = size // (2 * 5120)
    with_table, by_formula = (
        CollectiveCosts(each).one_kernel(work("quick_reduce", wire), rows, 5120).total_us
        for each in (setup, replace(setup, calibrations=()))
    )
    assert with_table == pytest.approx(published, rel=0.01)
    assert by_formula == pytest.approx(published, rel=0.34)


def test_flashinfers_fp8_costs_on_two_h200s_what_it_was_measured_at():
    setup = load_setup("qwen3-32b-h200-tp2", ("executor=plan_only",))
    for rows, published in ((8, 8.9), (4096, 124.0), (16384, 357.1)):
        found = CollectiveCosts(setup).one_kernel(work("flashinfer_fp8", "fp8_e4m3", "256"), rows, 5120)
        assert found.provenance == "measured"
        assert found.total_us == pytest.approx(published)
