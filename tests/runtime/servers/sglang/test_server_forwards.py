"""Rows in shards in a server: norms on the shard, early and late gathers, whole forwards and layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.strategy.file import StrategyFile
from commplan.runtime.servers.executed import change, differences, planned_calls

from .plans import own_whole_forwards, whole_forwards, written
from .server import Server, serving
from .test_server_qwen3 import logprobs

pytestmark = pytest.mark.slow

# Counts of tokens that two ranks divide evenly and that they do not, one among them; four prompts at once.
PROMPTS = [list(range(9, 9 + count)) for count in (1, 9, 16, 25, 40)]
BATCH = [list(range(start, start + 7)) for start in (50, 60, 70)]
FAMILIES = ["qwen2", "qwen3", "qwen3_moe", "deepseek_v3"]


def answers(server: Server) -> list[list[int]]:
    one = [server.generate(prompt)["output_ids"] for prompt in PROMPTS]
    return one + [answer["output_ids"] for answer in server.generate(BATCH)]


def short_logprobs(server: Server) -> list[float]:
    """Of a prompt that falls into the first range."""
    answer = server.generate(list(range(30, 45)), return_logprob=True, logprob_start_len=0)
    return [row[0] for row in answer["meta_info"]["input_token_logprobs"][1:]]


def said(server: Server) -> tuple[Any, ...]:
    return answers(server), short_logprobs(server), logprobs(server)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_in_shards_say_the_tokens_of_a_server_without_a_plan(
    family: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    model, latent = checkpoint(family), family == "deepseek_v3"
    with serving(model, tmp_path, None) as server:
        expected = said(server)
    for make in (whole_forwards, own_whole_forwards):
        strategy = make(model, latent)
        with serving(model, tmp_path, written(strategy, tmp_path / f"{make.__name__}.yaml")) as server:
            before = server.counts()
            tokens, *near = said(server)
            after = server.counts()
        assert tokens == expected[0], make.__name__
        for found, exact in zip(near, expected[1:], strict=True):
            assert found == pytest.approx(exact, abs=1e-4)
        check_counts(strategy, before, after)


def check_counts(strategy: StrategyFile, before: list[Any], after: list[Any]) -> None:
    """Every range ran on both ranks, by exactly the ops that the plan has there."""
    assert len(after) == 2
    for rank_before, rank_after in zip(before, after, strict=True):
        assert differences(strategy, rank_after) == []
        ran = change(rank_before, rank_after)
        used = {(told["mode"], told["range"]) for told in ran["forwards"]}
        assert used == {(mode, index) for mode, ranges in strategy.modes.items() for index in range(len(ranges))}
        planned = planned_calls(strategy, ran)
        assert {op for _, _, boundary, op, _ in planned if boundary == "embed_out"} >= {"reduce_scatter"}
        assert {"all_gather", "reduce_scatter"} <= {op for *_, op, _ in planned}
