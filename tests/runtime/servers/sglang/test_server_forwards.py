"""Rows in shards in a server: norms on the shard, early and late gathers, whole forwards and layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.strategy.file import StrategyFile
from commplan.runtime.servers.executed import change, differences, planned_calls

from .plans import whole_forwards, written
from .questions import Stock, counted
from .server import serving

pytestmark = pytest.mark.slow

FAMILIES = ["qwen3", "deepseek_v3"]  # dense; MLA, with experts behind the first layer


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_in_shards_say_what_a_server_without_a_plan_says(
    family: str, stock: Callable[[str], Stock], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    model, (expected, exact) = checkpoint(family), stock(family).counted
    strategy = whole_forwards(model, latent=family == "deepseek_v3")
    with serving(model, tmp_path, written(strategy, tmp_path / "plan.yaml")) as server:
        before = server.counts()
        tokens, near = counted(server)
        after = server.counts()
    assert tokens == expected
    assert near == pytest.approx(exact, abs=1e-4)
    check_counts(strategy, before, after)


def check_counts(strategy: StrategyFile, before: list[Any], after: list[Any]) -> None:
    """Every range ran on both ranks, by exactly the ops that the plan has there."""
    assert len(after) == 2
    for rank_before, rank_after in zip(before, after, strict=True):
        assert differences(strategy, rank_after) == []
        ran = change(rank_before, rank_after)
        used = {(told["mode"], told["range"]) for told in ran["forwards"]}
        assert used == {(mode, index) for mode, ranges in strategy.modes.items() for index in range(len(ranges))}
        places = {(boundary, op.split("(")[0]) for _, _, boundary, op, _ in planned_calls(strategy, ran)}
        assert {("embed_out", "reduce_scatter"), ("attn_in", "all_gather"), ("mlp_out", "reduce_scatter")} <= places
        assert (("attn_in", "latent_all_gather") in places) == (strategy.model.latent_width > 0)
