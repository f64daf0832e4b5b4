"""What does not fit is refused: our message, a non-zero exit code, and nothing left running."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from commplan.planner.strategy.file import Parallelism

from .plans import EVERYWHERE_PLAIN, plan, tokens, varied, written
from .server import STAND_INS, refused

pytestmark = pytest.mark.slow

SABOTEUR = Path(__file__).parent / "saboteur"


@pytest.fixture(scope="module")
def model(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("qwen3")


def assert_refused(code: int, output: str, *words: str) -> None:
    said = [line for line in output.splitlines() if line.startswith("commplan: error: ")]
    assert code != 0, output
    assert said, output
    for word in words:
        assert word in said[0]


def test_a_damaged_file(model: Path, tmp_path: Path) -> None:
    file = written(varied(model), tmp_path / "plan.yaml")
    file.write_text("\n".join(file.read_text().splitlines()[:-1]) + "\n")
    assert_refused(*refused(model, tmp_path, file), "plan.yaml", "truncated")


def test_a_plan_for_another_executor(model: Path, tmp_path: Path) -> None:
    file = written(varied(model), tmp_path / "plan.yaml", executor="transformers")
    assert_refused(*refused(model, tmp_path, file), "executor", "--set executor=sglang")


def test_a_plan_for_another_model_of_the_same_architecture(model: Path, tmp_path: Path) -> None:
    strategy = varied(model)
    file = written(strategy, tmp_path / "plan.yaml", model=replace(strategy.model, fingerprint="f" * 16))
    assert_refused(*refused(model, tmp_path, file), "model.fingerprint", "plan again")


def test_a_plan_for_another_number_of_ranks(model: Path, tmp_path: Path) -> None:
    file = written(varied(model), tmp_path / "plan.yaml", parallelism=Parallelism(4))
    assert_refused(*refused(model, tmp_path, file), "--tp-size", "the plan is for tp 4")


def test_an_argument_that_the_plan_cannot_live_with(model: Path, tmp_path: Path) -> None:
    """The others: test_arguments.py."""
    file, flag = written(varied(model), tmp_path / "plan.yaml"), "--enable-mixed-chunk"
    assert_refused(*refused(model, tmp_path, file, [flag]), "plan.yaml", f"leave {flag} out")


def test_a_hook_that_sglang_could_not_place_ends_the_server(model: Path, tmp_path: Path) -> None:
    file = written(varied(model), tmp_path / "plan.yaml")
    sabotage = {"PYTHONPATH": f"{SABOTEUR}:{STAND_INS}", "SABOTAGE": "hook"}
    assert_refused(*refused(model, tmp_path, file, variables=sabotage), "stage_facts", "not in place")


def test_ranks_that_found_different_plans_end_the_server(model: Path, tmp_path: Path) -> None:
    file = written(varied(model), tmp_path / "plan.yaml")
    plain = plan(model, prefill=[tokens(1, 256, EVERYWHERE_PLAIN)], decode=[tokens(1, 8, EVERYWHERE_PLAIN)])
    other = written(plain, tmp_path / "other.yaml")
    sabotage = {"PYTHONPATH": f"{SABOTEUR}:{STAND_INS}", "SABOTAGE": "plan", "SABOTAGE_PLAN": str(other)}
    assert_refused(*refused(model, tmp_path, file, variables=sabotage), "the ranks have different plans")
