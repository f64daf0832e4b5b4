"""The keys and units of `--json`, which other programs rely on: more may be added, none renamed."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from .commandline import answer, run

SMALL = "qwen3-0.6b-cpu-tp2"
OPTION_KEYS = {"ops", "impl", "numerics", "legal", "reason", "time_us", "breakdown", "source"}
CLASSES = {"exact", "reordered", "quantized"}


def is_time(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and value >= 0


@pytest.mark.parametrize("deployment", [SMALL, "deepseek-r1-h20-tp8", "qwen3-235b-h200-dp4"])
def test_plan(deployment: str, tmp_path: Path) -> None:
    plan = answer("plan", deployment, "-o", tmp_path / "plan.yaml")
    assert {"strategy_file", "numerics", "modes"} <= set(plan)
    assert plan["strategy_file"] == str(tmp_path / "plan.yaml")
    assert plan["numerics"] in CLASSES
    assert set(plan["modes"]) == {"prefill", "decode"}
    for ranges in plan["modes"].values():
        for item in ranges:
            check_range(item)
        for before, after in pairwise(ranges):
            assert after["tokens"][0] == before["tokens"][1] + 1


def check_range(item: dict[str, Any]) -> None:
    assert {"tokens", "step_us", "all_reduce_us", "best_uniform", "worst_loss"} <= set(item)
    assert is_time(item["stock_us"]) and is_time(item["library_us"])
    assert item["best_stock_flag"] is None or set(item["best_stock_flag"]) == {"name", "step_us"}
    first, last = item["tokens"]
    assert 1 <= first <= last
    assert is_time(item["step_us"]) and is_time(item["all_reduce_us"])
    assert set(item["best_uniform"]) == {"strategy", "step_us"}
    assert item["best_uniform"]["strategy"] in {"all_reduce", "int8_all_reduce", "tp_sp", "mixed_comm"}
    assert is_time(item["best_uniform"]["step_us"])
    assert 0 <= item["worst_loss"] < 1


def test_times_are_microseconds() -> None:
    """A prefill of 16384 tokens of a 671B model on eight H20 takes about a second."""
    (*_, last) = answer("plan", "deepseek-r1-h20-tp8")["modes"]["prefill"]
    assert 1e5 < last["step_us"] < 1e7
    assert 1e5 < last["all_reduce_us"] < 1e7


def test_explain() -> None:
    explanation = answer("explain", "deepseek-r1-h20-tp8", "--layer", 12, "--tokens", 4096)
    assert {"mode", "tokens", "layer", "boundary", "chosen", "alternatives"} <= set(explanation)
    assert (explanation["mode"], explanation["tokens"]) == ("prefill", 4096)
    assert (explanation["layer"], explanation["boundary"]) == (12, "attn_out")
    assert explanation["alternatives"]
    for option in (explanation["chosen"], *explanation["alternatives"]):
        check_option(option, "attn_out")
    assert explanation["chosen"]["legal"] is True


def check_option(option: dict[str, Any], boundary: str) -> None:
    assert set(option) >= OPTION_KEYS
    assert list(option["ops"]) == [boundary]
    assert option["impl"] is None or isinstance(option["impl"], str)
    assert option["numerics"] in CLASSES
    assert isinstance(option["legal"], bool)
    assert isinstance(option["reason"], str) and option["reason"]
    assert isinstance(option["source"], str)
    if option["time_us"] is None:
        assert not option["legal"] and option["breakdown"] == {}
    else:
        assert is_time(option["time_us"])
        assert all(key.endswith("_us") and is_time(value) for key, value in option["breakdown"].items())
        assert sum(option["breakdown"].values()) == pytest.approx(option["time_us"])


def test_explain_outside_the_layers_has_no_layer() -> None:
    explanation = answer("explain", SMALL, "--boundary", "head_in")
    assert (explanation["layer"], explanation["boundary"]) == (None, "head_in")
    check_option(explanation["chosen"], "head_in")


def test_validate(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    answer("plan", SMALL, "-o", good)
    bad.write_text(good.read_text().replace("mlp_out: all_reduce", "mlp_out: none", 1))
    result = run("validate", good, bad, "--json")
    assert result.code == 2
    assert set(result.json) == {"files"}
    first, second = result.json["files"]
    assert first == {"path": str(good), "legal": True, "errors": [], "groups": [], "notes": []}
    assert (second["path"], second["legal"]) == (str(bad), False)
    for error in second["errors"]:
        assert set(error) == {"field", "value", "reason"}
        assert all(isinstance(part, str) for part in error.values())


def test_validate_answers_in_the_same_shape_for_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    result = run("validate", tmp_path / "no.yaml", "--json")
    assert result.code == 2
    assert result.json["files"] == [
        {
            "path": str(tmp_path / "no.yaml"),
            "legal": False,
            "errors": [{"field": "", "value": "", "reason": "no such file"}],
            "groups": [{"field": "", "value": "", "reason": "no such file"}],
            "notes": [],
        }
    ]


@pytest.mark.parametrize(
    "arguments", [("plan", SMALL), ("explain", "deepseek-r1-h20-tp8"), ("presets",), ("plan", "deepseek-v3-a3-tp16")]
)
def test_the_same_question_gets_the_same_bytes(arguments: tuple[str, ...]) -> None:
    assert run(*arguments, "--json").out == run(*arguments, "--json").out


@pytest.mark.parametrize(
    "arguments", [("plan", SMALL), ("explain", SMALL), ("presets",), ("plan", "no-such"), ("plan", "--no-such-option")]
)
def test_the_answer_is_one_object_on_one_line(arguments: tuple[str, ...]) -> None:
    out = run(*arguments, "--json").out
    assert out.endswith("\n") and out.count("\n") == 1
    assert isinstance(json.loads(out), dict)
