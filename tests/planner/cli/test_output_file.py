"""`-o` writes a file whole or leaves what was there: byte for byte, with nothing left beside it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from commplan.planner.strategy.file import dump, load
from commplan.planner.strategy.files import write_text_atomically

from .commandline import answer, refused, run

SMALL = "qwen3-0.6b-cpu-tp2"
NO_PLAN = ("--set=numerics.pin=[{op: none, boundary: mlp_out}]",)
BAD_INPUT = ("--set=parallelism.tp=3",)
DEPLOYMENT = Path(__file__).parents[3] / "configs" / "deployments" / f"{SMALL}.yaml"
OLD = b"an older plan\r\n\x00\xff"


def test_the_file_holds_the_plan_that_was_reported(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    report = answer("plan", SMALL, "-o", path)
    assert report["strategy_file"] == str(path)
    strategy = load(path)
    assert dump(strategy) == path.read_text()
    assert {m: [[r.first, r.last] for r in rs] for m, rs in strategy.modes.items()} == {
        mode: [r["tokens"] for r in ranges] for mode, ranges in report["modes"].items()
    }
    assert os.listdir(tmp_path) == ["plan.yaml"]


def test_without_it_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert answer("plan", SMALL)["strategy_file"] is None
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("options", "code"), [(NO_PLAN, 3), (BAD_INPUT, 2)])
def test_planning_that_fails_leaves_the_old_file(options: tuple[str, ...], code: int, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_bytes(OLD)
    refused("plan", SMALL, *options, "-o", path, code=code)
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["plan.yaml"]


@pytest.mark.parametrize("step", ["replace", "fsync", "chmod"])
def test_writing_that_fails_leaves_the_old_file(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk, or where the folder does not let a file be replaced."""

    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "plan.yaml"
    path.write_bytes(OLD)
    monkeypatch.setattr(os, step, fails)
    error = refused("plan", SMALL, "-o", path)
    assert (error["kind"], error["file"]) == ("unwritable", str(path))
    assert "No space left on device" in error["message"]
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["plan.yaml"]


def test_an_interrupt_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "plan.yaml"
    path.write_bytes(OLD)
    monkeypatch.setattr(os, "replace", interrupted)
    assert run("plan", SMALL, "-o", path).code == 130
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["plan.yaml"]


def test_paths_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("no/such/folder/plan.yaml")
    expected = {
        tmp_path: "is a directory",
        tmp_path / "no" / "plan.yaml": "No such file",
        tmp_path / "file" / "plan.yaml": "Not a directory",
        tmp_path / "pipe": "is not a regular file",
        tmp_path / "dangling": "No such file",
        tmp_path / ("x" * 300): "name too long",
        Path("/dev/null"): "is not a regular file",
    }
    for path, message in expected.items():
        error = refused("plan", SMALL, "-o", path)
        assert (error["kind"], error["file"]) == ("unwritable", str(path))
        assert message in error["message"]
    assert sorted(os.listdir(tmp_path)) == ["dangling", "file", "pipe"]
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a file without write permission")
def test_a_read_only_file_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_bytes(OLD)
    path.chmod(0o444)
    error = refused("plan", SMALL, "-o", path)
    assert (error["kind"], error["message"]) == ("unwritable", "is not writable")
    assert path.read_bytes() == OLD


def test_a_file_that_may_not_be_written_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for those who may do anything, root among them."""
    path = tmp_path / "plan.yaml"
    path.write_bytes(OLD)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert refused("plan", SMALL, "-o", path)["message"] == "is not writable"
    assert path.read_bytes() == OLD


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_a_replaced_file_keeps_its_permissions(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_bytes(OLD)
    path.chmod(mode)
    answer("plan", SMALL, "-o", path)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_gets_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "any").touch()
    answer("plan", SMALL, "-o", tmp_path / "plan.yaml")
    assert (tmp_path / "plan.yaml").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_a_link_keeps_pointing_to_the_file_that_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "plan.yaml").write_bytes(OLD)
    (tmp_path / "current.yaml").symlink_to("plans/plan.yaml")
    answer("plan", SMALL, "-o", tmp_path / "current.yaml")
    assert (tmp_path / "current.yaml").is_symlink()
    assert load(tmp_path / "plans" / "plan.yaml").deployment.name == SMALL


def test_planning_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        answer("plan", "deepseek-v3-a3-tp16", "-o", tmp_path / name)
    assert (tmp_path / "a.yaml").read_bytes() == (tmp_path / "b.yaml").read_bytes()


def test_the_deployment_itself_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "deployment.yaml"
    path.write_text(DEPLOYMENT.read_text())
    (tmp_path / "link.yaml").symlink_to(path)
    for name in ("deployment.yaml", "link.yaml"):
        error = refused("plan", path, "-o", tmp_path / name)
        assert (error["field"], error["value"]) == ("--output", str(tmp_path / name))
    assert path.read_text() == DEPLOYMENT.read_text()


# ---- a dash ----------------------------------------------------------------------------------------------------------

HF_CONFIG = Path(__file__).parents[1] / "descriptions" / "hf_configs" / "qwen3-0.6b.json"


def test_a_dash_is_standard_output_and_everything_else_goes_to_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer("plan", SMALL, "-o", "plan.yaml")
    result = run("plan", SMALL, "-o", "-")
    assert result.code == 0
    assert result.out == (tmp_path / "plan.yaml").read_text()
    assert "Written to standard output" in result.err and "vs stock" in result.err
    assert os.listdir(tmp_path) == ["plan.yaml"]


def test_every_option_that_names_a_file_to_write_takes_a_dash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer("import-model", HF_CONFIG, "-o", "model.yaml")
    assert run("import-model", HF_CONFIG, "-o", "-").out == (tmp_path / "model.yaml").read_text()
    sweep = ("what-if", SMALL, "--vary", "tokens=1,8", "--csv")
    assert run(*sweep, "sweep.csv").code == 0
    assert run(*sweep, "-").out == (tmp_path / "sweep.csv").read_text()
    assert sorted(os.listdir(tmp_path)) == ["model.yaml", "sweep.csv"]


def test_only_one_thing_goes_to_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for options, field in ((("-o", "-", "--json"), "--json"), (("--json", "-o", "-"), "--output")):
        result = run("plan", SMALL, *options)
        assert (result.code, result.err, result.json["error"]["field"]) == (2, "", field)
    assert refused("what-if", SMALL, "--csv", "-", "--html", "-")["field"] == "--html"
    assert os.listdir(tmp_path) == []


def test_an_error_leaves_standard_output_empty() -> None:
    result = run("plan", SMALL, *BAD_INPUT, "-o", "-")
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("error: ")


def test_outside_of_a_command_a_dash_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_text_atomically("-", "text")
    assert (tmp_path / "-").read_text() == "text"
