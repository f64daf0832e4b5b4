"""What is said of collectives that were measured: against whom, and which aims, on a pair of GPUs and on more."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / "benchmarks" / "runtime"


@pytest.fixture
def comparison(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module and those that it imports by plain names, as when it is run."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("comparison")
    for name in ("comparison", "families"):
        sys.modules.pop(name, None)


def rows(comparison: ModuleType, ranks: int, us: dict[str, dict[int, float]]) -> Any:
    """Of one process, hidden 5120, back to back."""
    shared = {"process": 1, "hidden": 5120}
    lines = [{**shared, "what": "machine", "machine": f"{ranks} x GPU, torch 2.11"}]
    for case, by_tokens in us.items():
        lines += [
            {**shared, "what": "us", "case": case, "setting": "back to back", "tokens": tokens, "us": value}
            for tokens, value in by_tokens.items()
        ]
    return comparison.Rows(lines)


def said(comparison: ModuleType, family: str, found: Any) -> list[str]:
    one = next(each for each in comparison.FAMILIES if each.name == family)
    points = comparison.points(found, one, 5120, "back to back")
    verdicts: list[str] = comparison.verdicts(one, "back to back", points, found.ranks())
    return verdicts


AR = {"ours AR": {1: 4.0, 1024: 60.0}, "NCCL": {1: 8.0, 1024: 66.0}, "torch two-shot": {1: 9.0, 1024: 57.0}}


def test_a_pair_of_gpus_has_the_best_rival_to_beat(comparison: ModuleType) -> None:
    assert said(comparison, "AR", rows(comparison, 2, AR)) == [
        "1 to 511 tokens: each at least 0.97 x: 2.00 at 1, met",
        "from 512 tokens: each at least 1.05 x: 0.95 at 1024, **missed**",
    ]


def test_four_gpus_have_aims_against_nccl_and_against_the_best(comparison: ModuleType) -> None:
    assert said(comparison, "AR", rows(comparison, 4, AR)) == [
        "from 1 tokens: against the best each at least 0.97 x: 0.95 at 1024, **missed**",
        "1 to 16 tokens: against NCCL each at least 1.80 x: 2.00 at 1, met",
        "256 to 2048 tokens: against the best each at least 1.00 x: 0.95 at 1024, **missed**",
    ]


def test_of_a_pair_of_dp_groups_the_better_algorithm_stands_against_two_calls_and_the_trivial_way(
    comparison: ModuleType,
) -> None:
    us = {
        "ours gather pair dp2 one-shot": {16: 5.0, 4096: 520.0},
        "ours gather pair dp2 two-shot": {16: 7.0, 4096: 350.0},
        "NCCL gather pair dp2": {16: 20.0, 4096: 490.0},
        "ours gather pair dp2 trivially": {16: 4.9, 4096: 540.0},
    }
    assert said(comparison, "gather pair, 2 DP groups", rows(comparison, 4, us)) == [
        "from 1 tokens: against the best each at least 1.00 x: 0.98 at 16, **missed**",
        "1 to 64 tokens: against NCCL each at least 2.00 x: 4.00 at 16, met",
        "from 1024 tokens: against NCCL each at least 1.15 x: 1.40 at 4096, met",
    ]
