"""What a new wire format costs, and that nothing of another format is taken for its own."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from commplan.planner.report.palette import AREA, on_card

from ..runtime.transformers.tiny_models import write_checkpoint
from .trial import add_to_a_copy, changed_files, python
from .wire_format import COLOUR, ERRORS, WIRE_FORMAT

pytestmark = pytest.mark.slow
Command = Callable[..., subprocess.CompletedProcess[str]]
DEPLOYMENT, LAYERS = "qwen3-0.6b-cpu-tp2", 2
LISTED = ("--set", "numerics.loosest=quantized", "--set", "numerics.wire_formats=[int8, fp8_e4m3]")
PINNED = (*LISTED, "--set", "numerics.pin=[{op: fp8_all_reduce, boundary: mlp_out}]")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return add_to_a_copy(tmp_path_factory.mktemp("package"), WIRE_FORMAT)


@pytest.fixture(scope="module")
def command(package: Path) -> Command:
    """`commplan` of the copy."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        code = "import sys; sys.argv[0] = 'commplan'; from commplan.planner.cli import main; main()"
        return python(package, "-c", code, *map(str, arguments))

    return run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint("qwen3", tmp_path_factory.mktemp("checkpoints") / "qwen3")


@pytest.fixture(scope="module")
def setting(checkpoint: Path) -> tuple[str, ...]:
    return (DEPLOYMENT, "--set", f"model={checkpoint / 'config.json'}", *PINNED)


@pytest.fixture(scope="module")
def plan(command: Command, setting: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("plans") / "plan.yaml"
    done = command("plan", *setting, "-o", file)
    assert done.returncode == 0, done.stderr
    return file


def test_a_new_wire_format_costs_four_source_files(package: Path) -> None:
    assert len(WIRE_FORMAT.parts) == 4
    assert changed_files(package) == sorted(WIRE_FORMAT.parts)


def test_without_an_error_the_package_is_not_even_imported(tmp_path: Path) -> None:
    records = add_to_a_copy(tmp_path, WIRE_FORMAT) / "commplan/planner/strategy/op_kinds.py"
    without = records.read_text().replace(f"in {ERRORS}.items()", "in ()")
    assert without != records.read_text()
    records.write_text(without)
    done = python(tmp_path, "-c", "import commplan.planner.strategy.op_kinds")
    assert done.returncode != 0
    assert "fp8_all_reduce (None) is quantized, so its record needs an error and its source" in done.stderr


def test_it_is_planned_with_its_own_error(command: Command, setting: tuple[str, ...], plan: Path) -> None:
    assert "mlp_out: {fp8_all_reduce: {algorithm:" in plan.read_text()
    refused = command("plan", *setting, "--set", "numerics.error_budget=0.001")
    assert refused.returncode == 3
    assert f"has error {math.sqrt(LAYERS) * min(ERRORS.values()):.4g}, above the budget" in refused.stderr


def test_it_is_valid_with_its_algorithm_alone(command: Command, plan: Path) -> None:
    assert command("validate", plan).returncode == 0
    bare = plan.with_name("bare.yaml")
    bare.write_text(plan.read_text().replace("{fp8_all_reduce: {algorithm: gather}}", "fp8_all_reduce"))
    assert bare.read_text() != plan.read_text()
    refused = command("validate", bare)
    assert refused.returncode != 0
    assert "fp8_all_reduce needs its algorithm: {fp8_all_reduce: {algorithm: gather}} or two_shot" in (
        refused.stdout + refused.stderr
    )


def test_it_is_explained_with_the_passes_of_its_own_kernels(command: Command, setting: tuple[str, ...]) -> None:
    done = command("explain", *setting, "--layer", 1, "--boundary", "mlp_out", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    options = [told["chosen"], *told["alternatives"]]
    fp8, int8 = (
        next(o for o in options if o["ops"] == {"mlp_out": {f"{name}_all_reduce": {"algorithm": "gather"}}})
        for name in ("fp8", "int8")
    )
    assert fp8 == told["chosen"]
    assert 0 < fp8["breakdown"]["quantize_us"] < int8["breakdown"]["quantize_us"]  # of four kernels, not of seven
    assert fp8["breakdown"]["wire_us"] == int8["breakdown"]["wire_us"]  # a byte travels like a byte


def test_it_is_drawn_in_its_own_colour(command: Command, setting: tuple[str, ...], plan: Path) -> None:
    page = plan.with_name("report.html")
    done = command("report", plan, *setting[1:], "-o", page)
    assert done.returncode == 0, done.stderr
    assert "fp8_all_reduce" in page.read_text()
    assert on_card(COLOUR, AREA) in page.read_text()


def test_what_if_asks_about_it(command: Command, setting: tuple[str, ...]) -> None:
    done = command("what-if", *setting, "--vary", "error_budget=0.01,1", "--json")
    assert done.returncode == 0, done.stderr
    assert "fp8_all_reduce" in done.stdout
    assert "What does one more FP8 or INT8 boundary buy?" in done.stdout


def test_it_runs_on_two_ranks_as_it_was_planned(command: Command, plan: Path, checkpoint: Path) -> None:
    done = command("check", plan, "--model", checkpoint, "--max-tokens", 16, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    for mode in json.loads(done.stdout)["modes"]:
        assert mode["passed"] and mode["miscounted"] == []
        assert mode["max_error"] > 0
