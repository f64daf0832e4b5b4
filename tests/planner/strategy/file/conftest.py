"""Texts of strategy files: real plans, made once per test process, and two that stay as they are.

Tests that spoil a certain place use `plans/`, so that a better plan tomorrow does not break them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from commplan.planner.answers.to_file import plan_setup
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.strategy.file import dump

PLANS = Path(__file__).parent / "plans"


@cache
def planned_text(deployment: str) -> str:
    return dump(plan_setup(load_setup(deployment)))


@pytest.fixture(scope="session")
def planned():
    """`planned(deployment)`: the strategy file of a deployment preset."""
    return planned_text


@pytest.fixture(scope="session")
def r1() -> str:
    """DeepSeek-R1 on eight H20: plain all-reduce for few tokens, late gather with folds for many."""
    return (PLANS / "late_gather.yaml").read_text()


@pytest.fixture(scope="session")
def attention_dp() -> str:
    """Qwen3-235B with attention DP 4: groups are spelled, and ops are fused in pairs."""
    return (PLANS / "attention_dp.yaml").read_text()
