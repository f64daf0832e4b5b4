"""docs/models.md says of every architecture what the code does with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from commplan.planner.descriptions.loader import load_model, preset_names
from commplan.planner.executors import load_executor
from commplan.planner.strategy.architectures import every

from .planner.cli.commandline import run

PAGE = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
ROWS = {
    cells[0]: cells[1:]
    for line in PAGE.splitlines()
    if line.startswith("| ") and (cells := [cell.strip() for cell in line.strip("|").split("|")])[0] != "architecture"
}


def test_the_table_has_every_architecture_and_no_other() -> None:
    assert set(ROWS) == set(every())


@pytest.mark.parametrize("name", ROWS)
def test_a_row_names_the_presets_of_its_architecture(name: str) -> None:
    presets = [preset for preset in preset_names("models") if load_model(preset).architecture == name]
    assert ROWS[name][0] == ", ".join(presets)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_names_the_executors_that_run_it_and_else_says_why_none_does(name: str) -> None:
    _, _, run_by, why = ROWS[name]
    runs = [e for e in ("transformers", "sglang") if name in (load_executor(e).architectures or ())]
    assert run_by == ", ".join(runs)
    assert bool(why) == ("transformers" not in runs)
    assert why.startswith("refused: ") == (every()[name].refused is not None)


def test_plan_only_plans_every_architecture() -> None:
    assert load_executor("plan_only").architectures is None


def test_the_model_file_of_the_page_is_planned(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    model = tmp_path / "model.yaml"
    model.write_text(block)
    options = [f"--set={text}" for text in (f"model={model}", "parallelism.tp=2", "numerics.loosest=reordered")]
    planned = run("plan", "deepseek-r1-h20-tp8", *options, "--set=dtypes.weights=bf16")
    assert (planned.code, "norms a sum before it adds it" in planned.err) == (0, True), planned
