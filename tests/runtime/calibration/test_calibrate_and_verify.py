"""`commplan calibrate` and `commplan verify` as a user runs them: two ranks over gloo on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

COMMPLAN = Path(sys.executable).with_name("commplan")
TINY = "qwen3-0.6b-cpu-tp2"
SMALL = ("--set", "modes.prefill.tokens=[1, 8]", "--set", "modes.decode.tokens=[1, 4]", "--set", "model.vocab_size=64")
pytestmark = pytest.mark.slow


def commplan(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    found = subprocess.run([COMMPLAN, *map(str, arguments)], capture_output=True, text=True, timeout=280, check=False)
    assert found.returncode == code, found
    return found


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibration") / "here.yaml"
    commplan("calibrate", TINY, "-o", path, "--seconds", 1, *SMALL)
    assert os.listdir(path.parent) == ["here.yaml"]
    return path


def uses(calibration: Path) -> tuple[str, str]:
    return ("--set", f"hardware.calibrations=[{{file: {calibration}}}]")


def test_a_plan_rests_on_what_was_measured(calibration: Path) -> None:
    plan = json.loads(commplan("plan", TINY, *SMALL, *uses(calibration), "--json").stdout)
    assert {r["source"] for ranges in plan["modes"].values() for r in ranges} == {"measured"}


def test_a_calibration_says_what_a_launch_and_a_call_cost_the_host(calibration: Path) -> None:
    host = yaml.safe_load(calibration.read_text())["host"]
    assert host["launch_us"] > 0
    assert list(host["calls"]) == ["gloo"]
    assert host["calls"]["gloo"] > 0


def test_an_interrupted_calibration_leaves_the_old_file_and_goes_on(calibration: Path, tmp_path: Path) -> None:
    """Every point but one is there, with times that nothing takes; the last line was cut off."""
    path, partial = tmp_path / "here.yaml", tmp_path / "here.yaml.partial"
    path.write_text("the old one")
    tables = yaml.safe_load(calibration.read_text())["tables"]
    known = [
        f"collective {t['op']} {t['group_size']} {t['dtype']} {size // 256} 64 0"
        for t in tables
        for size in t["message_bytes"]
    ]
    lines = [json.dumps({"key": key, "samples": [5e6] * 99}) for key in known[1:]]
    partial.write_text("\n".join([*lines, '{"key": "collective all_re']))
    found = commplan("calibrate", TINY, "-o", path, "--seconds", 1, *SMALL)
    assert f"{len(known) - 1} points are there already" in found.stderr
    first, *others = (t for table in yaml.safe_load(path.read_text())["tables"] for t in table["latency_us"])
    assert first < 5e6
    assert set(others) == {5e6}
    assert not partial.exists()


def test_samples_of_another_machine_are_refused(tmp_path: Path) -> None:
    path, partial = tmp_path / "here.yaml", tmp_path / "here.yaml.partial"
    lines = [{"machine": {"ranks": "2", "backend": "nccl"}}, {"key": "collective all_reduce", "samples": [1.0]}]
    partial.write_text("\n".join(map(json.dumps, lines)))
    before = partial.read_text()
    found = commplan("calibrate", TINY, "-o", path, "--seconds", 1, *SMALL, code=2)
    assert "another machine (backend nccl, here gloo)" in found.stderr
    assert "--fresh" in found.stderr
    assert (partial.read_text(), path.exists()) == (before, False)


def test_a_calibration_that_cannot_be_made_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "here.yaml"
    path.write_text("the old one")
    found = commplan("calibrate", "qwen3-32b-h200-tp2", "-o", path, code=2)
    assert "no CUDA device" in found.stderr
    assert path.read_text() == "the old one"


def test_verify_measures_the_plan_and_its_rivals(calibration: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    commplan("plan", TINY, *SMALL, *uses(calibration), "-o", plan)
    arguments = ("verify", plan, "--deployment", TINY, *SMALL, *uses(calibration), "--rounds", 3, "--tokens", "1,3")
    found: dict[str, Any] = json.loads(commplan(*arguments, "--json").stdout)
    assert {(o["mode"], o["tokens"]) for o in found["outcomes"]} == {
        (mode, tokens) for mode in ("prefill", "decode") for tokens in (1, 3)
    }
    assert found["boundary_error"]["points"] == len(found["boundaries"]) > 8
    assert all(b["measured_us"] > 0 and b["predicted_us"] > 0 for b in found["boundaries"])
    assert all(0 < o["low"] <= o["regret"] <= o["high"] for o in found["outcomes"])


def test_a_plan_of_another_machines_calibration_is_refused_unless_forced(calibration: Path, tmp_path: Path) -> None:
    other, plan = tmp_path / "other.yaml", tmp_path / "plan.yaml"
    text = calibration.read_text()
    other.write_text(text.replace('torch: "2.', 'torch: "1.'))
    assert other.read_text() != text
    commplan("plan", TINY, *SMALL, *uses(other), "-o", plan)
    arguments = ("verify", plan, "--deployment", TINY, *SMALL, *uses(other), "--rounds", 3, "--tokens", "1")
    assert "another machine (torch 1." in commplan(*arguments, code=2).stderr
    assert "Error of" in commplan(*arguments, "--force").stdout


@pytest.mark.parametrize(("tokens", "why"), [("0", "planned for 1 to 8"), ("1,x", "written 1,100")])
def test_token_counts_that_cannot_be_are_refused(tokens: str, why: str, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    commplan("plan", TINY, *SMALL, "-o", plan)
    arguments = ("verify", plan, "--deployment", TINY, "--mode", "prefill", "--tokens", tokens)
    assert why in commplan(*arguments, code=2).stderr


def test_samples_that_cannot_be_kept_are_an_error_that_names_the_file() -> None:
    """As on a full disk: a run of minutes would otherwise end in a traceback."""
    from commplan.runtime.calibration.measure import _Progress
    from commplan.runtime.errors import RefusedError

    with pytest.raises(RefusedError, match="/dev/full: cannot be written: No space left on device"):
        _Progress(1, 1.0, "/dev/full", {"ranks": "2"})
