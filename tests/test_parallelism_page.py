"""The page about parallelism names every key, and the executors that it should."""

from __future__ import annotations

from pathlib import Path

from commplan.planner.descriptions.deployment import ParallelismSpec
from commplan.planner.strategy.executor_file import capabilities, executor_names

PAGE = Path(__file__).parent.parent / "docs" / "parallelism.md"


def test_the_page_names_every_key_and_who_plans_what() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for key in ParallelismSpec.model_fields:
        assert f"| `{key}` |" in text
    known = {name: capabilities(name) for name in executor_names()}
    assert [name for name, each in known.items() if each.pipeline] == ["plan_only"]
    assert {name for name, each in known.items() if each.hybrid_experts} == {"sglang", "plan_only"}
