"""`commplan rotate` as a command: what it says, what it never overwrites, and that planned ranks run what it writes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.strategy.file import Parallelism, save
from commplan.runtime.rotation import checkpoint as rotating
from tests.planner.cli.commandline import refused, run

from ..legal_plans import preferring
from ..strategy_files import from_plans, world_of
from .test_commands import SHARDED, process

Checkpoint = Callable[..., Path]


def test_it_says_what_it_wrote(checkpoint: Checkpoint, tmp_path: Path) -> None:
    result = run("rotate", checkpoint("qwen3"), "-o", tmp_path / "out")
    assert result.code == 0, result
    assert result.err.splitlines() == ["1 of 1 files, 0.3 MB of about 0.3 MB"]
    first, head, sensitivity = result.out.splitlines()
    assert first == f"Written to {tmp_path / 'out'}: 0.3 MB, 64 columns rotated in the whole row"
    assert head == "Its head is no longer the embedding, so it has a tensor more; config.json says so."
    assert sensitivity.endswith("measure it anew.")
    assert os.listdir(tmp_path) == ["out"]


def test_the_page_shows_what_it_prints(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs" / "rotation.md").read_text()
    typed, *shown = page.split("```console\n$ commplan ")[1].split("\n```")[0].splitlines()
    shutil.copytree(checkpoint("qwen3"), tmp_path / "qwen3")
    monkeypatch.chdir(tmp_path)
    result = run(*typed.split())
    assert (result.err + result.out).splitlines() == shown


def test_as_json(checkpoint: Checkpoint, tmp_path: Path) -> None:
    result = run("rotate", checkpoint("llama"), "-o", tmp_path / "out", "--block", 16, "--seed", 3, "--json")
    assert result.code == 0, result
    found, file = result.json, tmp_path / "out" / "model.safetensors"
    assert found.pop("bytes") == file.stat().st_size - header_bytes(file)
    assert found == {
        "checkpoint": str(tmp_path / "out"),
        "hidden_size": 64,
        "block": 16,
        "seed": 3,
        "files": 1,
        "untied": False,
        "without_tensors": 0,
        "not_copied": [],
    }


def header_bytes(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


def test_nothing_is_overwritten_without_force(checkpoint: Checkpoint, tmp_path: Path) -> None:
    answer_of("rotate", checkpoint("llama"), "-o", tmp_path / "out")
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    error = refused("rotate", checkpoint("qwen2"), "-o", tmp_path / "out")
    assert "exists already; name another folder, or give --force" in error["message"]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    answer_of("rotate", checkpoint("qwen2"), "-o", tmp_path / "out", "--force")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() != before


def answer_of(*arguments: object) -> Any:
    result = run(*arguments, "--json")
    assert result.code == 0, result
    return result.json


def test_its_own_input_is_never_replaced(checkpoint: Checkpoint) -> None:
    folder = checkpoint("llama")
    for target in (folder, folder / "inside", folder.parent):
        error = refused("rotate", folder, "-o", target, "--force")
        assert "which this command reads" in error["message"]


@pytest.mark.parametrize(
    ("options", "field", "said"),
    [
        (("--block", "48"), "--block", "a block that divides hidden_size 64 is expected: 2, 4, 8, 16, 32, 64"),
        (("--block", "many"), "--block", "a block that divides hidden_size 64 is expected: 2, 4, 8, 16, 32, 64"),
        (("--seed", "-1"), "--seed", "a whole number from 0"),
    ],
)
def test_a_bad_option_is_refused_and_nothing_written(
    options: tuple[str, ...], field: str, said: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    error = refused("rotate", checkpoint("llama"), "-o", tmp_path / "out", *options)
    assert error["field"] == field and error["message"].startswith(said)
    assert os.listdir(tmp_path) == []


def test_a_model_that_cannot_be_rotated_is_refused_and_nothing_written(checkpoint: Checkpoint, tmp_path: Path) -> None:
    error = refused("rotate", checkpoint("deepseek_v4"), "-o", tmp_path / "out")
    assert error["field"] == "model_type" and error["message"].startswith("its residual stream is several")
    assert error["file"] == str(checkpoint("deepseek_v4") / "config.json")
    assert os.listdir(tmp_path) == []


def test_a_run_that_is_broken_off_leaves_nothing(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> dict[str, Any]:
        assert any(path.name.startswith(".commplan.") for path in tmp_path.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(rotating, "_config", interrupted)  # the last thing that is written
    assert run("rotate", checkpoint("llama"), "-o", tmp_path / "out").code == 130
    assert os.listdir(tmp_path) == []


def test_a_disk_that_is_too_small_is_seen_before(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    error = refused("rotate", checkpoint("llama"), "-o", tmp_path / "out")
    assert "MB left" in error["message"]
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3", "deepseek_v3"])
def test_planned_ranks_compute_the_rotated_model(family: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder, p = tmp_path / "rotated", Parallelism(2)
    answer_of("rotate", checkpoint(family), "-o", folder)
    plan = preferring(world_of(folder, p), (SHARDED,) * 2)
    save(from_plans(folder, p, plan, plan), tmp_path / "plan.yaml")
    ended = process("check", tmp_path / "plan.yaml", "--model", folder, "--max-tokens", 16)
    assert ended.returncode == 0, ended
    assert [line.split()[1] for line in ended.stdout.splitlines()[1::2]] == ["ok", "ok"]


def test_a_plan_for_a_tied_model_is_not_taken_for_the_rotated_one(checkpoint: Checkpoint, tmp_path: Path) -> None:
    from commplan.runtime.transformers.checkpoint_fit import check_fit

    folder, p = tmp_path / "rotated", Parallelism(2)
    answer_of("rotate", checkpoint("qwen3"), "-o", folder)
    plan = preferring(world_of(checkpoint("qwen3"), p), (SHARDED,) * 2)
    file = from_plans(checkpoint("qwen3"), p, plan, plan)
    check_fit(file, checkpoint("qwen3"))
    with pytest.raises(Exception, match="the plan is for another model"):
        check_fit(replace(file), folder)
