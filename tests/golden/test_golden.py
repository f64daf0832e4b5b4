"""The plan of every deployment preset, byte for byte. A decision that changes shows here, and is reviewed."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from commplan.planner.answers.to_file import plan_setup
from commplan.planner.descriptions.loader import load_setup, preset_names
from commplan.planner.strategy.file import dump

GOLDEN = Path(__file__).parent
DEPLOYMENTS = preset_names("deployments")


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_plan_is_the_golden_one(deployment: str) -> None:
    path = GOLDEN / f"{deployment}.yaml"
    if not path.exists():
        pytest.fail(f"{path.name} is missing; write it with `python tests/golden/refresh.py` and review it")
    golden, today = path.read_text(), dump(plan_setup(load_setup(deployment)))
    if today != golden:
        pytest.fail(changes(golden, today, path.name), pytrace=False)


def changes(golden: str, today: str, name: str) -> str:
    """What differs, and what to do about it."""
    lines = difflib.unified_diff(golden.splitlines(), today.splitlines(), f"golden/{name}", "today", lineterm="", n=1)
    advice = "If this is what you meant, run `python tests/golden/refresh.py` and let the diff be reviewed."
    return "\n".join(["the plan has changed:", *lines, advice])


def test_every_golden_file_belongs_to_a_deployment() -> None:
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(DEPLOYMENTS)


def test_a_changed_decision_is_shown_with_the_way_to_accept_it() -> None:
    message = changes("mlp_out: all_reduce\n", "mlp_out: reduce_scatter\n", "x.yaml")
    assert "-mlp_out: all_reduce" in message and "+mlp_out: reduce_scatter" in message
    assert "refresh.py" in message
