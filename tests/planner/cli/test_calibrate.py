"""`commplan calibrate` without a machine: what the file says about where its figures come from."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from commplan.planner.calibration.needed_points import RIVALS, Point
from commplan.planner.cli import calibrate
from commplan.planner.cli.tables_of_a_machine import set_before
from commplan.planner.descriptions.loader import load_hardware

from .commandline import run

SMALL = "qwen3-0.6b-cpu-tp2"
LATENT = "deepseek-r1-h200-tp2"
CALIBRATIONS = Path(__file__).parents[3] / "configs" / "calibrations"


def measured(setup: Any, points: list[Point], seconds: float, partial: Path) -> list[dict[str, Any]]:
    """As if every point had taken 7 us on every rank."""
    machine = {"ranks": "2", "torch": "2.0", "device": "stand-in"}
    samples = {" ".join(map(str, p)): [7.0] * 3 for p in points}
    return [{"machine": machine, "samples": samples, "host": {"launch": [9.0] * 3, "stand-in": [11.0] * 3}}] * 2


def calibrated(path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Any:
    monkeypatch.setattr(calibrate, "_measured", measured)
    monkeypatch.setattr("commplan.runtime.bound.host.check_host", lambda backend, ranks: None)  # it has those devices
    result = run("calibrate", *arguments, "-o", path)
    assert (result.code, result.err) == (0, ""), result
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    ("overrides", "source"),
    [
        ((), f"commplan calibrate {SMALL}"),
        (("model.vocab_size=64",), f"commplan calibrate {SMALL} --set model.vocab_size=64"),
        (
            ("modes.prefill.tokens=[1, 8]", "modes.decode.tokens=[1, 4]"),
            f"commplan calibrate {SMALL} --set 'modes.prefill.tokens=[1, 8]' --set 'modes.decode.tokens=[1, 4]'",
        ),
    ],
)
def test_the_source_is_the_command_with_its_overrides(
    overrides: tuple[str, ...], source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [part for text in overrides for part in ("--set", text)]
    found = calibrated(tmp_path / "here.yaml", monkeypatch, SMALL, *given)
    assert found["source"] == source
    assert found["host"] == {"launch_us": 9.0, "calls": {"stand-in": 11.0}}
    assert shlex.split(source) == ["commplan", "calibrate", SMALL, *given]


def test_an_override_that_adds_points_is_in_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Latent projections are measured where weights have the type of the activations, and only there."""
    plain = calibrated(tmp_path / "plain.yaml", monkeypatch, LATENT)
    fp16 = calibrated(tmp_path / "fp16.yaml", monkeypatch, LATENT, "--set", "dtypes.weights=fp16")
    assert not fp16.get("gemms")
    assert {(g["inner"], g["columns"]) for g in plain["gemms"]} == {(7168, 1536), (7168, 576)}
    assert fp16["source"] == f"{plain['source']} --set dtypes.weights=fp16"


def test_some_ops_alone_are_measured_for_a_table_beside_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("qwen3-32b-h200-tp2", "--only", "all_reduce.pushed", "--only", "reduce_scatter")
    found = calibrated(tmp_path / "some.yaml", monkeypatch, *given)
    assert found["source"] == shlex.join(["commplan", "calibrate", *given])
    measured = {(t["op"], t["impl"], t.get("algorithm")) for t in found["tables"]}
    own = {("reduce_scatter", impl, None) for impl in ("nccl", "commplan_triton", "commplan_triton_norm")}
    assert measured == {("all_reduce", "commplan_triton_norm", "pushed"), *own}


@pytest.mark.parametrize(("file", "named"), [("some.yaml", "{file}"), ("-", "FILE")])
def test_a_table_beside_others_is_named_before_those_of_the_machine(
    file: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibrate, "_measured", measured)
    monkeypatch.setattr("commplan.runtime.bound.host.check_host", lambda backend, ranks: None)
    given = ("calibrate", "qwen3-32b-h200-tp2", "--only", "reduce_scatter", "-o", file)
    shown = run(*given)
    (line,) = [text for text in (shown.out + shown.err).splitlines() if text.startswith("Plan with it: ")]
    command = shlex.split(line.removeprefix("Plan with it: "))
    assert command[:-1] == ["commplan", "plan", "DEPLOYMENT", "--set"]
    uses = yaml.safe_load(command[-1].removeprefix("hardware.calibrations="))
    there = load_hardware("h200-2").calibrations
    assert len(there) > 1
    assert uses == [{"file": named.format(file=file)}, *(use.model_dump(exclude_none=True) for use in there)]
    if file != "-":
        assert run("plan", "qwen3-32b-h200-tp2", "--brief", *command[-2:]).code == 0


def test_a_table_that_is_there_already_is_not_named_twice(tmp_path: Path) -> None:
    hardware = load_hardware("h200-2")
    first = hardware.calibrations[-1].file
    uses = yaml.safe_load(set_before(first, hardware).removeprefix("hardware.calibrations="))
    assert [use["file"] for use in uses] == [first, *(use.file for use in hardware.calibrations[:-1])]


def test_an_op_that_no_deployment_asks_about_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    found = run("calibrate", SMALL, "--only", "all_reduce", "--only", "all_reduce.pushed", "-o", path)
    assert found.code == 2 and not path.exists()
    assert "--only: is not among what these deployments ask about: all_reduce (got 'all_reduce.pushed')" in found.err
    found = run("calibrate", SMALL, "--only", "nothing", "-o", path)
    assert "ask about: all_reduce, all_gather, reduce_scatter, all_to_all (got 'nothing')" in found.err


def test_an_op_of_which_one_size_alone_runs_here_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_size(setup: Any, points: list[Point], seconds: float, partial: Path) -> list[dict[str, Any]]:
        found = measured(setup, points, seconds, partial)
        for rank in found:
            for key in rank["samples"]:
                if "all_reduce.pushed" in key and " 1 5120 " not in key:
                    rank["samples"][key] = []
        return found

    monkeypatch.setattr(calibrate, "_measured", one_size)
    monkeypatch.setattr("commplan.runtime.bound.host.check_host", lambda backend, ranks: None)
    path, pushed = tmp_path / "some.yaml", ("calibrate", "qwen3-32b-h200-tp2", "--only", "all_reduce.pushed", "-o")
    found = run(*pushed, path)
    assert found.code == 2 and not path.exists()
    assert "no op of these can run on this machine, so that there is nothing to write" in found.err
    assert run(*pushed, path, "--only", "reduce_scatter").code == 0
    assert yaml.safe_load(path.read_text())["ops"] == ["reduce_scatter"]


def test_an_import_measures_nothing_that_could_be_chosen() -> None:
    found = run("calibrate", "--import", "aiconfigurator:h200_sxm", "--only", "all_reduce")
    assert found.code == 2 and "--import measures nothing" in found.err


@pytest.mark.parametrize("name", ["h100-2", "h200-2"])
def test_the_source_of_a_shipped_calibration_gives_its_points(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = yaml.safe_load((CALIBRATIONS / f"{name}.yaml").read_text())
    again = calibrated(tmp_path / "again.yaml", monkeypatch, *shlex.split(shipped["source"])[2:])
    # They were measured before our all-reduce was told its algorithm, sums had formats, and rivals were measured too.
    asked = [each for each in points(again) if not is_later(each)]
    assert asked == points(shipped)


def is_later(table: dict[str, Any]) -> bool:
    told = table.get("op") == "all_reduce" and "algorithm" in table
    return told or "wire" in table or table.get("impl") in (*RIVALS, "composed", "composed_norm")


def points(calibration: Any) -> list[Any]:
    """Every table without what was measured."""
    figures = ("latency_us", "relative_spread")
    return [
        {key: value for key, value in table.items() if key not in figures}
        for kind in ("tables", "kernels", "gemms")
        for table in calibration.get(kind, ())
    ]
