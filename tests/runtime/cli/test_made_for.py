"""Commands that run a strategy file of another executor say how to plan the same for theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from commplan.planner.strategy.file import load, plan_again

from ...planner.cli.commandline import answer, refused, run

TINY = "qwen3-0.6b-cpu-tp2"
SET = ("--set", "modes.decode.tokens=[1, 4]")


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    answer("plan", TINY, *SET, "-o", tmp_path / "plan.yaml")
    return tmp_path / "plan.yaml"


@pytest.fixture
def in_sglang(tmp_path: Path) -> Path:
    answer("plan", TINY, *SET, "--set", "executor=sglang", "-o", tmp_path / "sglang.yaml")
    return tmp_path / "sglang.yaml"


def again(executor: str) -> str:
    return f"commplan plan {TINY} --set 'modes.decode.tokens=[1, 4]' --set executor={executor}"


def test_the_command_to_plan_again_keeps_what_was_overridden(plan: Path, in_sglang: Path) -> None:
    assert plan_again(load(plan), "sglang") == again("sglang")
    assert plan_again(load(in_sglang), "plan_only") == again("plan_only")


def test_a_deployment_that_is_no_preset_is_not_named_as_one(plan: Path) -> None:
    mine = plan.with_name("mine.yaml")
    mine.write_text(plan.read_text().replace(f"deployment: {{name: {TINY}", "deployment: {name: my-own"))
    said = plan_again(load(mine), "sglang")
    assert said.startswith("commplan plan DEPLOYMENT --set ") and said.endswith("(DEPLOYMENT: the file of my-own)")


@pytest.mark.parametrize("command", [("check",), ("run", "--tokens", "1")])
def test_our_runtime_names_the_file_and_the_way_out(command: tuple[str, ...], in_sglang: Path, tmp_path: Path) -> None:
    name, *options = command
    error = refused(name, in_sglang, "--model", tmp_path, *options)
    assert (error["file"], error["field"], error["value"]) == (str(in_sglang), "executor", "sglang")
    assert again("transformers") in error["message"]


def test_launch_names_the_way_out(plan: Path) -> None:
    result = run("launch", "sglang", plan, "--model-path", "nowhere", "--dry-run")
    assert result.code == 2
    assert f"{plan}:6: executor: " in result.err and again("sglang") in result.err


def test_an_export_says_that_a_plan_was_made_for_another_executor(plan: Path, in_sglang: Path) -> None:
    assert answer("export", "sglang", in_sglang)["notes"] == []
    (note,) = answer("export", "sglang", plan)["notes"]
    assert note.startswith("planned for executor transformers") and note.endswith(again("sglang"))
    assert "note: planned for executor transformers" in run("export", "sglang", plan).err
    assert run("export", "sglang", in_sglang).err == ""
