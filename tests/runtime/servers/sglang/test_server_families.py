"""Every family: a server under a plan says the tokens of a server without one, and runs exactly the planned ops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from commplan.runtime.servers.executed import change, differences, planned_calls

from .plans import varied, written
from .questions import Stock, answers
from .server import serving

pytestmark = pytest.mark.slow

FAMILIES = [("qwen2", 1), ("qwen3_moe", 1), ("qwen3_moe", 2), ("deepseek_v2", 1), ("deepseek_v3", 1)]


@pytest.mark.parametrize(("family", "ep"), FAMILIES)  # Qwen3: test_server_qwen3.py
def test_tokens_are_those_without_a_plan_and_ops_are_those_of_the_plan(
    family: str, ep: int, stock: Callable[[str], Stock], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    model, arguments = checkpoint(family), ("--ep-size", str(ep))
    expected = stock(family).answers  # where experts lie changes no answer
    strategy = varied(model, ep)
    with serving(model, tmp_path, written(strategy, tmp_path / "plan.yaml"), arguments) as server:
        before = server.counts()
        assert answers(server) == expected
        after = server.counts()
    assert len(after) == 2
    for rank_before, rank_after in zip(before, after, strict=True):
        assert differences(strategy, rank_after) == []
        ran = change(rank_before, rank_after)
        assert differences(strategy, ran) == []
        used = {(told["mode"], told["range"]) for told in ran["forwards"]}
        assert used == {("prefill", 0), ("prefill", 1), ("decode", 0), ("decode", 1)}
        assert any("reduce_scatter_all_gather" in key for key in planned_calls(strategy, ran))
