"""A machine, its links and its tables can be given in plain numbers, and every mistake in them is one line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from commplan.planner.descriptions.given import SOURCE
from commplan.planner.descriptions.loader import load_setup

from .commandline import answer, refused, run

R1 = "deepseek-r1-h20-tp8"
TABLE: dict[str, Any] = {
    "op": "all_reduce",
    "impl": "nccl",
    "group_size": 8,
    "message_bytes": [1024, 1048576, 268435456],
    "latency_us": [8, 20, 1400],
}
LINK = {"bandwidth_gb_per_s": 200, "efficiency": 0.7, "latency_us": 2, "collective_overhead_us": 5}
MACHINE = {
    "name": "mine",
    "vendor": "nvidia",
    "devices_per_node": 8,
    "backend": "nccl",
    "compute": {
        "bf16_tflops": 500,
        "fp8_tflops": 1000,
        "gemm_efficiency": 0.7,
        "attention_efficiency": 0.5,
        "gemm_tile_rows": 64,
    },
    "memory": {"capacity_gb": 96, "bandwidth_gb_per_s": 2000, "bandwidth_efficiency": 0.8, "kernel_overhead_us": 3},
    "links": {"intra_node": {"topology": "switch", **LINK}},
}


def tables(*given: dict[str, Any]) -> str:
    return f"--set=hardware.tables={json.dumps(given)}"


def last(plan: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = plan["modes"]["prefill"][-1]
    return found


def test_a_plain_number_is_an_assumed_figure_that_says_who_gave_it() -> None:
    figure = load_setup(R1, ("hardware.compute.bf16_tflops=500",)).hardware.compute.bf16_tflops
    assert (figure.value, figure.provenance, figure.source) == (500, "assumed", SOURCE)


def test_a_figure_that_the_machine_lacks_can_be_given_in_a_plain_number() -> None:
    assert load_setup("qwen3-32b-a2-tp2").hardware.compute.fp32_tflops is None
    figure = load_setup("qwen3-32b-a2-tp2", ("hardware.compute.fp32_tflops=40",)).hardware.compute.fp32_tflops
    assert figure is not None and (figure.value, figure.provenance) == (40, "assumed")


def test_a_number_put_into_a_figure_does_not_keep_the_source_of_another_number() -> None:
    figure = load_setup(R1, ("hardware.compute.bf16_tflops.value=500",)).hardware.compute.bf16_tflops
    assert (figure.value, figure.provenance, figure.source) == (500, "assumed", SOURCE)


def test_a_figure_with_its_source_is_taken_as_it_is() -> None:
    given = "hardware.compute.bf16_tflops={value: 500, provenance: measured, source: here}"
    figure = load_setup(R1, (given,)).hardware.compute.bf16_tflops
    assert (figure.value, figure.provenance, figure.source) == (500, "measured", "here")


def test_a_link_between_nodes_can_be_given_in_plain_numbers() -> None:
    link = json.dumps({"topology": "switch", **LINK})
    setup = load_setup(R1, ("hardware.num_nodes=2", f"hardware.links.inter_node={link}", "parallelism.tp=16"))
    assert setup.hardware.links.inter_node is not None
    assert setup.hardware.links.inter_node.bandwidth_gb_per_s.value == 200


def test_a_whole_machine_can_be_given_in_plain_numbers() -> None:
    given = f"--set=hardware={json.dumps(MACHINE)}"
    assert last(answer("plan", R1, given))["step_us"] > 0
    setup = load_setup(R1, (f"hardware={json.dumps(MACHINE)}", "hardware.memory.capacity_gb=80"))
    assert (setup.hardware.name, setup.hardware.memory.capacity_gb.value, setup.calibrations) == ("mine", 80, ())
    borrowed = wire(answer("explain", R1, given, "--boundary", "mlp_out", "--op", "all_reduce"))["source"]
    assert borrowed.startswith("table (transferred)") and "the nearest switch link with tables" in borrowed


def test_a_machine_named_later_replaces_the_one_that_was_given() -> None:
    assert load_setup(R1, (f"hardware={json.dumps(MACHINE)}", "hardware=h200-8")).hardware.name == "h200-8"


# ---- tables ----------------------------------------------------------------------------------------------------------


def wire(plan: dict[str, Any]) -> dict[str, Any]:
    """The plain sum by the library."""
    options = (plan["chosen"], *plan["alternatives"])
    (found,) = (option for option in options if option["ops"] == {"mlp_out": "all_reduce"})
    assert isinstance(found, dict)
    return found


def test_a_table_stands_before_those_of_the_machine_and_is_called_measured() -> None:
    place = ("explain", R1, "--tokens", 1, "--boundary", "mlp_out", "--op", "all_reduce")
    given = answer(*place, tables({**TABLE, "message_bytes": [1024, 14336, 16384], "latency_us": [3, 4, 5]}))
    assert wire(given)["breakdown"]["wire_us"] == pytest.approx(4)
    assert wire(given)["source"] == f"measured: {SOURCE}"
    assert wire(answer(*place))["source"].startswith("table (transferred)")


def test_a_table_changes_the_plan_and_its_hash() -> None:
    dear = tables({**TABLE, "latency_us": [2000, 4000, 90000]})
    own, given = answer("plan", R1), answer("plan", R1, dear)
    assert own["hash"] != given["hash"]
    assert last(given)["all_reduce_us"] > 2 * last(own)["all_reduce_us"]


def test_a_table_is_not_scaled_to_the_link_that_was_given_with_it() -> None:
    place = ("explain", R1, "--tokens", 1, "--boundary", "mlp_out", "--op", "all_reduce")
    table = tables({**TABLE, "message_bytes": [1024, 14336, 16384], "latency_us": [3, 4, 5]})
    slow = "--set=hardware.links.intra_node.bandwidth_gb_per_s=100"
    assert wire(answer(*place, table, slow))["breakdown"]["wire_us"] == pytest.approx(4)


def test_a_table_of_a_group_that_is_not_there_is_not_dropped_in_silence() -> None:
    done = run("plan", R1, tables({**TABLE, "group_size": 4}))
    assert done.code == 0
    assert "note: hardware.tables[0] is of 4 ranks, and the groups here have 8: nothing is priced by it" in done.err


@pytest.mark.parametrize(
    ("table", "field", "message"),
    [
        ({"latency_us": [8, 20]}, "latency_us", "3 sizes, 2 latencies"),
        ({"message_bytes": [1024, 1024, 2048]}, "message_bytes", "sizes rise"),
        ({"message_bytes": [2048, 1024, 4096]}, "message_bytes", "sizes rise"),
        ({"message_bytes": [1.5, 2, 3]}, "message_bytes[0]", "whole number"),
        ({"latency_us": ["8 us", 20, 1400]}, "latency_us[0]", "the unit is part of the field's name"),
        ({"latency_us": [0.008, 0.02, 1.4]}, "latency_us", "latencies are in us"),
        ({"latency_us": [8, -20, 1400]}, "latency_us[1]", "greater than"),
        ({"latency": [8, 20, 1400]}, "latency", "did you mean 'latency_us'?"),
        ({"impl": "ncl"}, "impl", "did you mean 'nccl'?"),
        ({"impl": "hccl"}, "impl", "no such impl"),
        ({"op": "allreduce"}, "op", "all_reduce"),
        ({"group_size": 16}, "group_size", "has 8 devices"),
        ({"dtype": "bf61"}, "dtype", "bf16"),
    ],
)
def test_a_table_that_cannot_be_is_refused_by_field(table: dict[str, Any], field: str, message: str) -> None:
    error = refused("plan", R1, tables({**TABLE, **table}))
    assert (error["file"], error["field"]) == ("--set", f"hardware.tables[0].{field}")
    assert message in error["message"]


@pytest.mark.parametrize("given", ["3", "[]", "{op: all_reduce}", "[3]", "nccl.yaml"])
def test_what_is_no_list_of_tables_is_refused(given: str) -> None:
    error = refused("plan", R1, f"--set=hardware.tables={given}")
    assert error["file"] == "--set"
    assert str(error["field"]).startswith("hardware.tables")


def test_two_tables_of_the_same_thing_are_refused() -> None:
    assert refused("plan", R1, tables(TABLE, TABLE))["field"] == "hardware.tables"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"vendor": "acme"}, "hardware.vendor"),
        ({"links": {}}, "hardware.links.intra_node"),
        ({"memory": {"capacity_gb": "96 GB"}}, "hardware.memory"),
        ({"gpu": 1}, "hardware.gpu"),
    ],
)
def test_a_machine_that_cannot_be_is_refused_by_field(change: dict[str, Any], field: str) -> None:
    error = refused("plan", R1, f"--set=hardware={json.dumps({**MACHINE, **change})}")
    assert error["file"] == "--set"
    assert str(error["field"]).startswith(field)
