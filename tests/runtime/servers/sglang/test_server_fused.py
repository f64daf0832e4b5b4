"""Kernels of our own in a server: sums with the add and the norm behind them, beside sums that stand alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from commplan.planner.strategy.file import StrategyFile
from commplan.runtime.servers.executed import change, differences, planned_calls

from .plans import composed_quantised, fused, fused_quantised, quantised, written
from .questions import Stock, answers, logprobs
from .server import serving

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe"])  # DeepSeek's: test_server_forwards.py
def test_fused_sums_say_the_tokens_of_a_server_without_a_plan(
    family: str, stock: Callable[[str], Stock], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    model, strategy, without = checkpoint(family), fused(checkpoint(family)), stock(family)
    with serving(model, tmp_path, written(strategy, tmp_path / "plan.yaml")) as server:
        before = server.counts()
        assert answers(server) == without.answers
        after = server.counts()
        assert logprobs(server) == pytest.approx(without.logprobs, abs=1e-4)
    for rank_before, rank_after in zip(before, after, strict=True):
        assert differences(strategy, rank_after) == []
        ran = change(rank_before, rank_after)
        used = {(told["mode"], told["range"]) for told in ran["forwards"]}
        assert used == {("prefill", 0), ("prefill", 1), ("decode", 0), ("decode", 1)}
        assert {impl for *_, impl in planned_calls(strategy, ran)} == {
            "commplan_triton",
            "commplan_triton_norm",
            "gloo",
        }


@pytest.mark.parametrize(("made", "near_by"), [(quantised, 0.2), (fused_quantised, 0.05), (composed_quantised, 0.2)])
def test_quantised_sums_stay_near_the_exact_ones_and_are_counted(
    made: Callable[[Path], StrategyFile],
    near_by: float,
    stock: Callable[[str], Stock],
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    model, strategy, exact = checkpoint("qwen3"), made(checkpoint("qwen3")), stock("qwen3").logprobs
    with serving(model, tmp_path, written(strategy, tmp_path / "plan.yaml")) as server:
        near = logprobs(server)
        assert [differences(strategy, rank) for rank in server.counts()] == [[], []]
    assert near == pytest.approx(exact, abs=near_by)
    assert near != exact
