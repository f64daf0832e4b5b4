"""Sweeps: every combination of values, illegal ones with their reason, and the same figures as the planner's own."""

from __future__ import annotations

import csv

import pytest

from commplan.planner.descriptions.loader import load_setup
from commplan.planner.what_if.evaluation import OWN
from commplan.planner.what_if.fields import read_axes

from ..cli.commandline import answer, refused, run
from ..named_plans import planner_of

R1, SMALL = "deepseek-r1-h20-tp8", "qwen3-0.6b-cpu-tp2"
LINK = "hardware.links.intra_node.bandwidth_gb_per_s"


def values(text: str) -> list[object]:
    return list(read_axes((text,), ("prefill", "decode"))[0].values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tokens=1,64,4096", [1, 64, 4096]),
        ("tokens=1..4", [1, 2, 3, 4]),
        ("tokens=16..128:x2", [16, 32, 64, 128]),
        ("tokens=16..100:*2", [16, 32, 64]),
        ("tp=2..8:+2", [2, 4, 6, 8]),
        ("tp=1,2..4,8", [1, 2, 3, 4, 8]),
        ("link_bandwidth=100..200:+50", [100, 150, 200]),
        ("error_budget=null,0.1", [None, 0.1]),
        ("numerics.pin=[],[{boundary: attn_in, op: slice}]", [[], [{"boundary": "attn_in", "op": "slice"}]]),
        ("tp=2,2,4", [2, 4]),
    ],
)
def test_values_are_lists_and_ranges(text, expected):
    assert values(text) == expected


@pytest.mark.parametrize(
    ("vary", "field"),
    [
        ("tokns=1", "tokns"),
        ("parallelism.tq=1", "parallelism.tq"),
        ("parallelism=1", "parallelism"),
        ("hardware.links.intra_node.speed=1", "hardware.links.intra_node.speed"),
        ("model.layers=1", "model.layers"),
        ("modes.mixed.context_tokens=1", "modes.mixed.context_tokens"),
        ("name.first=1", "name.first"),
        ("mode=mixed", "mode"),
        ("tp=", "tp"),
        ("tp=1,,2", "tp"),
        ("tp=4..2", "tp"),
        ("tp=1..8:x1", "tp"),
        ("tp=a..b", "tp"),
        ("schema=1", "schema"),
    ],
)
def test_a_field_that_does_not_exist_is_refused_up_front(vary, field):
    assert refused("what-if", SMALL, "--vary", vary)["field"] == field


def test_a_sweep_without_field_or_twice_the_same_is_refused():
    refused("what-if", SMALL, "--vary", "tp")
    refused("what-if", SMALL, "--vary", "tp=2", "--vary", "parallelism.tp=2")
    refused("what-if", SMALL, "--vary", "tokens=1..99999", "--vary", "tp=1,2")
    refused("what-if", SMALL, "--mode", "mixed")
    refused("what-if", SMALL, "--tokens", "0")


def test_varied_modes_are_asked_at_the_largest_count_of_each():
    found = answer("what-if", SMALL, "--vary", "mode=prefill,decode")
    modes = load_setup(SMALL).deployment.modes
    assert [(p["mode"], p["tokens"]) for p in found["points"]] == [
        (m, modes[m].tokens[1]) for m in ("prefill", "decode")
    ]
    one = answer("what-if", SMALL, "--vary", "mode=prefill,decode", "--tokens", "3")
    assert [p["tokens"] for p in one["points"]] == [3, 3]


def test_the_points_are_the_product_of_the_values():
    found = answer("what-if", SMALL, "--vary", "tokens=1,64", "--vary", "mode=prefill,decode")
    assert [(p["tokens"], p["mode"]) for p in found["points"]] == [
        (1, "prefill"), (1, "decode"), (64, "prefill"), (64, "decode"),
    ]  # fmt: skip
    point = found["points"][0]
    assert point["set"] == {"tokens": 1, "mode": "prefill"}
    assert {"set", "mode", "tokens", "legal", "reason", "plans"} <= set(point)
    assert {"name", "step_us", "communication_us", "wire_bytes", "activation_bytes", "numerics"} <= set(
        point["plans"][0]
    )


def test_figures_are_the_planners_own():
    planner = planner_of(R1, "prefill")
    (point,) = answer("what-if", R1, "--vary", "tokens=16384")["points"]
    steps = {plan["name"]: plan["step_us"] for plan in point["plans"]}
    assert steps["plan"] == planner.step_us(planner.best(16384), 16384)
    assert steps["all_reduce"] == planner.step_us(planner.plain(16384), 16384)
    assert steps["tp_sp"] == planner.uniform("tp_sp", 16384).step_us
    assert {"int8_all_reduce", "quantized_all_reduce", "mixed_comm"} == set(point["refused"])


@pytest.mark.slow
def test_sharing_graphs_between_points_changes_no_figure():
    """Setups that differ in prices share their graphs; each alone says the same."""
    together = answer("what-if", "qwen3-32b-h200-tp2", "--vary", "error_budget=0.02,0.05", "--vary", f"{LINK}=200,900")
    for point in together["points"]:
        alone = [f"--vary={field}={value}" for field, value in point["set"].items()]
        (again,) = answer("what-if", "qwen3-32b-h200-tp2", *alone)["points"]
        assert again == point


def test_an_illegal_value_is_shown_and_the_sweep_goes_on():
    found = answer("what-if", R1, "--vary", "tp=3,8,16", "--vary", "tokens=1,64")["points"]
    assert [point["legal"] for point in found] == [False] * 2 + [True] * 2 + [False] * 2
    assert all(point["reason"] and not point["plans"] for point in found if not point["legal"])
    assert "larger than the machine" in found[-1]["reason"]


def test_constraints_that_leave_no_plan_are_an_illegal_point():
    found = answer("what-if", R1, "--vary", "activation_memory_gb=0.001,100")["points"]
    assert [point["legal"] for point in found] == [False, True]
    assert "activation memory" in found[0]["reason"]


@pytest.mark.parametrize(
    ("vary", "value", "words"),
    [
        (
            "tokens=100-200",
            "100-200",
            "a whole number from 1 to 4194304 is expected; values are written 1,64,4096, ranges",
        ),
        ("tokens=1,0", 0, "a whole number from 1"),
        ("tokens=64,1.5", 1.5, "a whole number from 1"),
        ("tokens=64,true", True, "a whole number from 1"),
        ("tokens=.nan", "nan", "a whole number from 1"),
        ("tokens=1..64:2", "1..64:2", "FIRST..LAST:+STEP or FIRST..LAST:xFACTOR"),
        ("tokens=1..64:xx2", "1..64:xx2", "FIRST..LAST:+STEP or FIRST..LAST:xFACTOR"),
        ("tp=2,two", "two", "a plain number is expected"),
        ("tp=2.0", 2.0, "a whole number is expected"),
        ("tp=0", 0, "greater than 0"),
        ("link_bandwidth=100-200", "100-200", "values are written 1,64,4096, ranges"),
        ("link_bandwidth=100,.nan", "nan", "a finite number"),
        ("link_bandwidth=-1", -1, "greater than 0"),
        ("error_budget=.inf", "inf", "a finite number"),
        ("activation_memory_gb=0", 0, "greater than 0"),
        ("loosest=quantised", "quantised", "'quantized'"),
        ("weights=fp12", "fp12", "'fp8'"),
        ("search.range_tolerance=2", 2, "less than 1"),
        ("modes.prefill.tokens=3", 3, "a list"),
        ("model.num_hidden_layers=0", 0, "greater than 0"),
        ("hardware.num_nodes=x", "x", "a plain number"),
        ("hardware=h20-8,nowhere", "nowhere", "no preset of that name"),
        ("model=3", 3, "a preset or a path"),
        ("executor=sglnag", "sglnag", "did you mean 'sglang'"),
        ("mode=prefil", "prefil", "did you mean 'prefill'"),
    ],
)
def test_a_value_that_no_deployment_can_have_ends_the_sweep_before_it_starts(vary, value, words):
    error = refused("what-if", SMALL, "--vary", vary)
    assert (error["file"], error["field"], error["value"]) == ("--vary", vary.partition("=")[0], value)
    assert words in error["message"]


def test_a_figure_can_be_varied_as_its_bare_number_and_as_a_whole():
    whole = "{value: 100, provenance: assumed, source: a guess}"
    assert values(f"link_bandwidth=100,{whole}")[0] == 100
    assert values(f"link_bandwidth={whole}")[0]["value"] == 100


def test_crossovers_are_where_the_fastest_strategy_changes():
    found = answer("what-if", R1, "--set", "loaded_layers=8", "--vary", "tokens=1,4096", "--vary", "tp=4,8")[
        "crossovers"
    ]
    assert [(c["set"], c["before"], c["after"]) for c in found] == [
        ({"tp": 4}, OWN, "tp_sp"),
        ({"tp": 8}, OWN, "tp_sp"),
    ]
    count = found[1]["tokens"]
    planner = planner_of(R1, "prefill")
    before, after = (count - 1) // 8 * 8 - 8, (count + 7) // 8 * 8 + 8  # tp divides both
    assert planner.uniform("tp_sp", before).step_us > planner.uniform("all_reduce", before).step_us
    assert planner.uniform("tp_sp", after).step_us < planner.uniform("all_reduce", after).step_us


def test_a_varied_link_scales_the_tables_and_says_so():
    found = answer("what-if", R1, "--vary", f"{LINK}=225,450,900")
    half, own, twice = ({p["name"]: p for p in point["plans"]}["all_reduce"] for point in found["points"])
    assert (
        own["communication_us"]
        == {p["name"]: p for p in answer("what-if", R1, "--vary", "tokens=16384")["points"][0]["plans"]}["all_reduce"][
            "communication_us"
        ]
    )
    assert own["provenance"] == "table (transferred)"
    assert half["provenance"] == twice["provenance"] == "formula"
    assert 1.8 <= half["communication_us"] / own["communication_us"] <= 2.05
    assert 0.48 <= twice["communication_us"] / own["communication_us"] <= 0.56
    assert any("scaled" in note for note in found["notes"])


def test_a_link_that_is_set_costs_what_it_costs_in_a_sweep_and_says_so():
    (point,) = (found := answer("what-if", R1, "--set", f"{LINK}=225", "--vary", "tokens=64"))["points"]
    (varied,) = answer("what-if", R1, "--vary", f"{LINK}=225", "--tokens", "64")["points"]
    assert point["plans"] == varied["plans"]
    assert any(LINK in note and "scaled" in note for note in found["notes"])


# ---- comments on what was varied -------------------------------------------------------------------------------------


def questions(*arguments: object) -> dict[str, dict]:
    return {each["question"]: each for each in answer("what-if", *arguments)["answers"]}


@pytest.mark.parametrize(
    ("vary", "asked"),
    [
        (("tokens=1,64",), ["What does the token count change?"]),
        (("mode=prefill,decode",), ["What does the forward mode change?"]),
        (("link_bandwidth=225,450",), ["What does link_bandwidth change?"]),
        (("tp=4,8",), ["What does tp change?", "Fewest devices?"]),
        (("hardware=h20-8,h200-8",), ["What does hardware change?"]),
        (
            ("tokens=1,64", "hardware.compute.gemm_efficiency=0.5,0.9"),
            ["What does the token count change?", "What does hardware.compute.gemm_efficiency change?"],
        ),
        ((), ["What does the token count change?"]),
    ],
)
def test_what_is_said_is_about_what_was_varied(vary: tuple[str, ...], asked: list[str]) -> None:
    arguments = [f"--vary={each}" for each in vary]
    found = answer("what-if", R1, "--set=loaded_layers=8", "--tokens=64", *arguments)["answers"]
    assert [each["question"] for each in found] == asked


def test_the_words_about_a_setting_are_those_of_its_points() -> None:
    found = answer("what-if", R1, "--set=loaded_layers=8", "--vary", "tp=2,4,8,16")
    said, legal = found["answers"][0], [p for p in found["points"] if p["legal"]]
    steps = [next(plan["step_us"] for plan in p["plans"] if plan["name"] == "plan") for p in legal]
    assert [f["step_us"] for f in said["figures"] if f["legal"]] == steps
    assert [f["set"] for f in said["figures"]] == [p["set"] for p in found["points"]]
    assert f"goes from {steps[0] / 1000:,.2f} ms at 2 to {steps[-1] / 1000:,.2f} ms at 8" in said["answer"]
    assert "illegal at 16: parallelism.tp: larger than the machine" in said["answer"]


def test_a_setting_that_changes_nothing_is_said_to_change_nothing() -> None:
    said = questions(SMALL, "--tokens=8", "--vary=search.range_tolerance=0.001,0.01")
    text = said["What does search.range_tolerance change?"]["answer"]
    assert "step stays the same" in text and "the same ops are chosen at every value" in text


def test_where_other_ops_are_chosen_is_said() -> None:
    found = questions(R1, "--set=loaded_layers=8", "--vary=tokens=1,4096")["What does the token count change?"]
    assert [f["decisions_change"] for f in found["figures"]] == [False, True]
    assert "other ops are chosen from 4096 on" in found["answer"]


def test_each_combination_of_the_other_settings_is_told_apart() -> None:
    found = questions(SMALL, "--vary=tokens=1,64", "--vary=tp=1,2")
    text = found["What does the token count change?"]["answer"]
    assert text.startswith("At tp 1: ") and ". At tp 2: " in text
    many = questions(SMALL, "--vary=tokens=1,64", "--vary=link_bandwidth=1,2,3,4,5")
    text = many["What does the token count change?"]["answer"]
    assert text.count("At link_bandwidth ") == 2 and text.endswith("The other 3 combinations are in the table")


def test_values_that_are_illegal_for_one_reason_are_told_together() -> None:
    found = questions(R1, "--vary=error_budget=0.01,0.05")
    text = found["What does error_budget change?"]["answer"]
    assert text.startswith("No value is legal; illegal at 0.01, 0.05: numerics.error_budget: means something only")
    assert "What does one more INT8 boundary buy?" in found


@pytest.mark.slow
def test_one_more_int8_boundary_has_a_price():
    found = questions("qwen3-32b-a2-tp2", "--set", "numerics.error_budget=0.05", "--vary", "error_budget=0.05,0.1")
    figures = found["What does one more INT8 boundary buy?"]["figures"]
    now, more, free = (figure["int8_boundaries"] for figure in figures)
    assert now < more < now + 10 < free, "formats of smaller errors take the place of others"
    assert figures[1]["step_us"] < figures[0]["step_us"]
    assert figures[0]["error"] < figures[1]["error"] < 1.1 * figures[0]["error"]


def test_the_table_for_people_and_the_csv(tmp_path):
    file = tmp_path / "sweep.csv"
    result = run("what-if", R1, "--vary", "tokens=64,4096", "--vary", "tp=8,16", "--csv", file)
    assert (result.code, result.err) == (0, "")
    assert "illegal: parallelism.tp: larger than the machine" in result.out
    assert "tp 8: from" in result.out
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["plan"] for row in rows] == ["all_reduce", OWN, "tp_sp", "plan", ""] * 2
    assert rows[4]["legal"] == "False"


def test_without_a_field_the_token_count_is_varied():
    found = answer("what-if", SMALL, "--mode", "decode")["points"]
    assert [point["tokens"] for point in found] == [1, 2, 4, 8, 16, 32]


def test_a_deployment_without_a_plan_of_its_own_can_be_swept():
    found = answer(
        "what-if", R1, "--set", "limits.activation_memory_gb=0.0001", "--vary", "activation_memory_gb=0.0001,9"
    )
    assert [point["legal"] for point in found["points"]] == [False, True]


@pytest.mark.slow
def test_a_terminal_sees_progress_and_a_pipe_does_not():
    import os
    import pty
    import subprocess
    import sys

    command = [sys.executable, "-m", "commplan.planner.cli", "what-if", SMALL, "--vary", "tokens=1..4", "--json"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 4096):
                shown += chunk
        except OSError:  # the other side is gone
            pass
        assert process.stdout is not None
        assert process.stdout.read().startswith(b"{")
    assert b"100%" in shown
    quiet = subprocess.run(command, capture_output=True, check=True)
    assert quiet.stderr == b""


def test_a_strategy_without_a_place_is_told_by_the_reason_of_its_own_op_alone() -> None:
    machine = ("--set=executor=plan_only", "--set=hardware=ascend-a3-16", "--set=loaded_layers=8")
    (line,) = [
        each
        for each in run("what-if", "qwen3-235b-h200-dp4", *machine, "--vary=tokens=64").out.splitlines()
        if "mixed_comm has no place" in each
    ]
    assert "all_reduce_all_gather: " in line
    assert "restricted by" not in line and "residual is" not in line and not line.endswith(")")
