"""Does it fit: what `plan` says and refuses, and what `what-if` makes of points that do not."""

from __future__ import annotations

import csv
import re

import pytest

from commplan.planner.descriptions.loader import load_setup
from commplan.planner.what_if.marginal_answers import Asker

from .commandline import answer, refused, run

QWEN, R1, SMALL = "qwen3-32b-h200-tp2", "deepseek-r1-h20-tp8", "qwen3-0.6b-cpu-tp2"
ON_A100 = ("--set", "dtypes.weights=bf16", "--set", "hardware=a100-8")


def test_a_plan_that_fits_says_so_in_one_line_and_warns_of_nothing():
    result = run("plan", SMALL)
    (line,) = [text for text in result.out.splitlines() if text.startswith("Memory of a rank")]
    assert "fits in 6.0 GB; weights 1.2, KV cache 0.5 (4,128 tokens of decode)" in line
    assert result.err == ""


def test_r1_in_bf16_on_a100s_is_planned_with_a_warning(tmp_path):
    result = run("plan", R1, *ON_A100, "-o", tmp_path / "plan.yaml")
    assert result.code == 0 and (tmp_path / "plan.yaml").exists()
    (warning,) = [text for text in result.err.splitlines() if text.startswith("warning: ")]
    assert "does not fit: weights take 169.6 GB of a rank, more than 75.2 GB" in warning
    assert "dtypes.weights: w4a16, mxfp4" in warning


@pytest.mark.parametrize(
    ("arguments", "field", "words"),
    [
        ((QWEN, "--set", "hardware.memory.capacity_gb=30"), "dtypes.weights", "take more or larger devices"),
        ((QWEN,), "modes.decode", "end modes.decode.tokens at 192"),
        (
            (SMALL, "--set", "modes.prefill={tokens: [1, 131072], sequence_tokens: 128}",
             "--set", "hardware.memory.capacity_gb=3"),
            "limits", "end modes.prefill.tokens earlier",
        ),
    ],
)  # fmt: skip
def test_require_fit_refuses_and_writes_nothing(tmp_path, arguments, field, words):
    output = tmp_path / "plan.yaml"
    output.write_text("old\n")
    error = refused("plan", *arguments, "--require-fit", "-o", output, code=3)
    assert (error["kind"], error["field"]) == ("does_not_fit", field)
    assert words in error["message"]
    assert output.read_text() == "old\n"


def test_less_memory_for_activations_is_advised_once_and_with_what_there_is():
    long = ("plan", "qwen3-32b-h200-tp2", "--require-fit", "--set", "modes.prefill.tokens=[1,4194304]")
    message = refused(*long, code=3)["message"]
    (limit,) = re.findall(r"limits\.activation_memory_gb=([\d.]+) asks for a plan", message)
    assert 118 < float(limit) < 119  # 151.4 GB less 32.8 of weights
    assert "activation_memory_gb" not in refused(*long, "--set", "limits.activation_memory_gb=1000", code=3)["message"]


def test_require_fit_lets_pass_what_fits(tmp_path):
    assert answer("plan", SMALL, "--require-fit", "-o", tmp_path / "plan.yaml")["memory"]["fits"] is True


def test_the_json_of_a_plan_holds_the_memory_by_part():
    memory = answer("plan", QWEN)["memory"]
    assert memory["fits"] is False and memory["misses"] == "kv_cache"
    assert memory["most_tokens"] == {"decode": 192}
    assert memory["ways_out"] == ["end modes.decode.tokens at 192"]
    assert sum(memory["weights_by_part_gb"].values()) == pytest.approx(memory["weights_gb"], abs=0.01)
    assert memory["kv_cache_gb"] == pytest.approx(
        memory["kv_tokens_asked"] * memory["kv_bytes_per_token"] / 1e9, abs=0.01
    )
    room = memory["capacity_gb"] - memory["kept_gb"] - memory["weights_gb"]
    assert memory["kv_tokens_left"] == pytest.approx(room * 1e9 / memory["kv_bytes_per_token"], rel=1e-3)


def test_a_stack_of_layers_says_how_many():
    assert "Memory of a rank of 8 of 61 layers: fits" in run("plan", "deepseek-r1-h200-tp2").out


# ---- what-if ---------------------------------------------------------------------------------------------------------


def test_a_point_that_does_not_fit_is_illegal_with_the_reason():
    found = answer("what-if", R1, "--vary", "tp=1,2,4,8")
    reasons = {point["set"]["tp"]: point["reason"] for point in found["points"]}
    assert [point["legal"] for point in found["points"]] == [False, False, False, True]
    assert "weights take 673.0 GB" in reasons[1] and "weights take 169.1 GB" in reasons[4]
    assert found["points"][3]["kv_tokens_left"] == 66250


def test_a_decode_step_beyond_the_cache_is_illegal():
    found = answer("what-if", QWEN, "--mode", "decode", "--vary", "tokens=192,193")["points"]
    assert [point["legal"] for point in found] == [True, False]
    assert "decode asks for 790,721 tokens of KV cache" in found[1]["reason"]


def test_the_tokens_left_are_in_the_table_the_json_and_the_csv(tmp_path):
    arguments = ("what-if", QWEN, "--vary", "tokens=64")
    plans = answer(*arguments, "--csv", tmp_path / "sweep.csv")["points"][0]["plans"]
    assert {plan["kv_tokens_left"] for plan in plans} == {789621}
    assert "789,621" in run(*arguments).out
    with (tmp_path / "sweep.csv").open() as stream:
        assert {row["kv_tokens_left"] for row in csv.DictReader(stream)} == {"789621"}


def test_a_strategy_that_holds_more_leaves_fewer_tokens():
    """Where activations take more than the server keeps for them, each strategy leaves its own room."""
    (point,) = answer("what-if", "qwen3-32b-a2-tp2", "--set", "limits.static_fraction=1", "--tokens", 32768,
                      "--vary", "mode=prefill")["points"]  # fmt: skip
    left = {plan["name"]: (plan["activation_bytes"], plan["kv_tokens_left"]) for plan in point["plans"]}
    held, tokens = zip(*sorted(left.values()), strict=True)
    assert held[0] < held[-1]
    assert list(tokens) == sorted(tokens, reverse=True) and tokens[0] > tokens[-1]


def test_no_tp_size_is_recommended_that_does_not_fit():
    found = {a["question"]: a for a in answer("what-if", R1, "--vary", "tp=1,2,4,8")["answers"]}["What does tp change?"]
    assert found["answer"].startswith("Only 8 is legal: the plan's step is ")
    assert "illegal at 1: does not fit: weights take 673.0 GB" in found["answer"]
    assert [figure["legal"] for figure in found["figures"]] == [False, False, False, True]
    tried = Asker(R1, (), load_setup(R1), "prefill", 16384).answers()
    (page,) = [a for a in tried if a.question == "Which TP size?"]
    assert page.answer == "only TP 8 fits; TP 1, 2, 4 do not fit"


@pytest.mark.parametrize(
    ("arguments", "devices", "words"),
    [
        ((R1,), [1, 2, 4, 8], "8: room for 66,250 tokens"),
        (("qwen3-235b-h200-tp8",), [1, 2, 4], "4: room for"),
        ((R1, "--set", "dtypes.weights=bf16"), [1, 2, 4, 8], "more than the 8 of h20-8"),
    ],
)
def test_the_fewest_devices_are_those_below_which_nothing_fits(arguments, devices, words):
    found = answer("what-if", *arguments, "--vary", "tp=8", "--tokens", 64)["answers"]
    (fewest,) = [a for a in found if a["question"] == "Fewest devices?"]
    assert [figure["devices"] for figure in fewest["figures"]] == devices
    assert fewest["answer"].startswith(words)
    if "more than" in words:
        assert "weights fit from 16 devices of this memory on" in fewest["answer"]
    else:
        assert fewest["figures"][-1]["kv_tokens_left"] > 0
