"""CUDA graphs, without a GPU: what may be captured, and what a replay counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from commplan.planner.strategy.file import StrategyFile
from commplan.runtime.errors import BoundaryError, RefusedError
from commplan.runtime.servers.captured_sizes import check_captured, sizes_for, straddled
from commplan.runtime.servers.executed import differences, of_rank
from commplan.runtime.servers.forward import Forwards
from commplan.runtime.servers.sglang.scheduler import SchedulerHooks
from commplan.runtime.servers.sglang.words import CAPTURE_FLAG

from .fakes import FakeGroup, bind_to, strategy

ENDS = (2, 8)  # of the decode ranges of `strategy`


@pytest.fixture
def plan() -> StrategyFile:
    return strategy()


@pytest.mark.parametrize("captured", [[1, 2, 4, 8], [2, 8], [1, 2], [1], []])
def test_sizes_that_hold_every_end_of_a_range_are_fine(plan: StrategyFile, captured: list[int]) -> None:
    check_captured(plan, captured, CAPTURE_FLAG)


@pytest.mark.parametrize("captured", [[1, 4, 8], [8], [1, 3]])
def test_a_graph_that_would_serve_two_ranges_is_refused_with_the_sizes_to_capture(
    plan: StrategyFile, captured: list[int]
) -> None:
    with pytest.raises(RefusedError, match="--cuda-graph-bs-decode") as refused:
        check_captured(plan, captured, CAPTURE_FLAG)
    assert f"captured at {min(size for size in captured if size > 2)}" in str(refused.value)
    words = str(refused.value).split("--cuda-graph-bs-decode ")[-1].split(" (got")[0]
    check_captured(plan, [int(word) for word in words.split()], CAPTURE_FLAG)


def test_the_sizes_that_launch_asks_for_straddle_nothing(plan: StrategyFile) -> None:
    sizes = sizes_for(plan.modes["decode"])
    assert straddled(plan.modes["decode"], sizes) == []
    assert max(sizes) == ENDS[-1]


def test_every_padded_batch_lies_in_the_range_of_its_graph(plan: StrategyFile) -> None:
    sizes = sizes_for(plan.modes["decode"])
    for batch in range(1, ENDS[-1] + 1):
        padded = min(size for size in sizes if size >= batch)
        assert plan.range_of("decode", batch) is plan.range_of("decode", padded)


# ---- what a replay counts --------------------------------------------------------------------------------------------


class Runner:
    """Like SGLang's: a captured batch size is replayed, another runs eagerly."""

    def __init__(self, hooks: SchedulerHooks) -> None:
        self.hooks = hooks
        self.decode_cuda_graph_runner = SimpleNamespace(bs=0)

    def model(self, mode: str, rows: int) -> None:
        batch = SimpleNamespace(forward_mode=SimpleNamespace(name=mode))
        self.hooks.around_model(self._layers, None, None, torch.zeros(rows), batch)

    def _layers(self, model: Any, ids: Any, positions: torch.Tensor, batch: Any) -> None:
        forwards, x = self.hooks.forwards, torch.ones(len(positions), 4)
        with forwards.embedding():
            forwards.all_reduce(lambda group, x: x, FakeGroup(), x)
        for layer in range(2):
            for boundary in ("attn_out", "mlp_out"):
                forwards.sum(layer, boundary, x)

    def serve(self, mode: str, rows: int, padded: int | None = None) -> None:
        def forward(runner: Runner, batch: Any) -> Any:
            if padded is None:
                self.model(mode, rows)
            else:
                self.decode_cuda_graph_runner.bs = padded
            return SimpleNamespace(can_run_graph=padded is not None)

        batch = SimpleNamespace(forward_mode=SimpleNamespace(name=mode))
        self.hooks.around_runner(forward, self, batch)


@pytest.fixture
def runner(plan: StrategyFile) -> Runner:
    hooks = SchedulerHooks(plan, "plan.yaml")
    hooks.forwards = Forwards(plan, bind_to(plan))
    return Runner(hooks)


def test_a_capture_counts_nothing_and_each_replay_once(runner: Runner, plan: StrategyFile) -> None:
    for size in (2, 4):
        runner.model("DECODE", size)  # warm-up and capture: outside of ModelRunner.forward
        runner.model("DECODE", size)
    assert of_rank(runner.hooks.forwards)["forwards"] == []
    runner.serve("EXTEND", 20)
    for _ in range(3):
        runner.serve("DECODE", 3, padded=4)
    runner.serve("DECODE", 1, padded=2)
    told = of_rank(runner.hooks.forwards)
    assert {(f["mode"], f["range"]): (f["forwards"], f["rows"]) for f in told["forwards"]} == {
        ("decode", 0): (1, 2),
        ("decode", 1): (3, 12),
        ("prefill", 1): (1, 20),
    }
    assert differences(plan, told) == []


def test_a_replay_of_a_graph_from_elsewhere_is_an_error(runner: Runner) -> None:
    with pytest.raises(BoundaryError, match="not captured under the plan"):
        runner.serve("DECODE", 3, padded=4)


def test_an_all_reduce_that_no_plan_has_is_told(runner: Runner, plan: StrategyFile) -> None:
    forwards = runner.hooks.forwards
    with forwards.serving(), forwards.forward("decode", 1):
        forwards.all_reduce(lambda group, x: x, FakeGroup(), torch.ones(1, 4))
    found = differences(plan, of_rank(forwards))
    assert "decode: 1 collectives that the plan does not have" in found
    assert any("embed_out: all_reduce by gloo ran 0 times, planned 1" in line for line in found)


def test_a_forward_that_the_plan_has_no_range_for_is_an_error(runner: Runner) -> None:
    with pytest.raises(BoundaryError, match=r"9 tokens lie outside the planned decode span \[1, 8\]"):
        runner.serve("DECODE", 9)


def test_a_warm_up_may_be_larger_than_any_request_and_counts_nothing(runner: Runner) -> None:
    runner.model("DECODE", 64)
    runner.model("TARGET_VERIFY", 4)
    assert of_rank(runner.hooks.forwards)["forwards"] == []


def test_rows_that_are_not_those_of_the_forward_are_an_error(runner: Runner) -> None:
    forwards = runner.hooks.forwards
    with forwards.forward("decode", 4), pytest.raises(BoundaryError, match="holds 2 rows in a forward of 4 tokens"):
        forwards.sum(0, "attn_out", torch.ones(2, 4))
