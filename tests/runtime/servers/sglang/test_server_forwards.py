"""Rows in shards in a server: norms on the shard, early and late gathers, whole forwards and layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.strategy.file import StrategyFile
from commplan.runtime.servers.executed import change, differences, planned_calls

from .plans import whole_forwards, written
from .server import Server, serving

pytestmark = pytest.mark.slow

# Counts of tokens that two ranks divide evenly and that they do not, in every range; three prompts at once.
COUNTS = (1, 7, 8, 13, 16, 19, 28, 41)
BATCH = [list(range(start, start + 7)) for start in (50, 60, 70)]
FAMILIES = ["qwen3", "qwen3_moe", "deepseek_v3"]


def said(server: Server) -> tuple[list[list[int]], list[float]]:
    """Tokens that follow prompts, and the log-probabilities of the prompts' own."""
    tokens, near = [], []
    for count in COUNTS:
        answer = server.generate(list(range(9, 9 + count)), return_logprob=True, logprob_start_len=0)
        tokens.append(answer["output_ids"])
        near += [row[0] for row in answer["meta_info"]["input_token_logprobs"][1:]]
        near += [row[0] for row in answer["meta_info"]["output_token_logprobs"]]
        tokens.append(server.generate([90 - token for token in range(count)])["output_ids"])
    return tokens + [answer["output_ids"] for answer in server.generate(BATCH)], near


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_in_shards_say_what_a_server_without_a_plan_says(
    family: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    model = checkpoint(family)
    with serving(model, tmp_path, None) as server:
        expected, exact = said(server)
    strategy = whole_forwards(model, latent=family == "deepseek_v3")
    with serving(model, tmp_path, written(strategy, tmp_path / "plan.yaml")) as server:
        before = server.counts()
        tokens, near = said(server)
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
