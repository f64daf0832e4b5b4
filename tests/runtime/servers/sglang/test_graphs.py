"""CUDA graphs, without a GPU: what may be captured, and what a replay counts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from commplan.planner.strategy.file import StrategyFile
from commplan.runtime.errors import BoundaryError, RefusedError
from commplan.runtime.servers.captured_sizes import check_captured, check_within, sizes_for, straddled, with_ends
from commplan.runtime.servers.executed import differences, of_rank
from commplan.runtime.servers.forward import Forwards
from commplan.runtime.servers.sglang.scheduler import SchedulerHooks
from commplan.runtime.servers.sglang.words import DECODE_GRAPHS, PREFILL_GRAPHS

from .fakes import PLAIN, FakeGroup, a_range, bind_to, strategy

ENDS = (2, 8)  # of the decode ranges of `strategy`


@pytest.fixture
def plan() -> StrategyFile:
    return strategy()


@pytest.mark.parametrize("captured", [[1, 2, 4, 8], [2, 8], [1, 2], [1], []])
def test_sizes_that_hold_every_end_of_a_range_are_fine(plan: StrategyFile, captured: list[int]) -> None:
    check_captured(plan, captured, DECODE_GRAPHS)


@pytest.mark.parametrize("captured", [[1, 4, 8], [8], [1, 3]])
def test_a_graph_that_would_serve_two_ranges_is_refused_with_the_sizes_to_capture(
    plan: StrategyFile, captured: list[int]
) -> None:
    with pytest.raises(RefusedError, match="--cuda-graph-bs-decode") as refused:
        check_captured(plan, captured, DECODE_GRAPHS)
    assert f"captured at {min(size for size in captured if size > 2)}" in str(refused.value)
    words = str(refused.value).split("--cuda-graph-bs-decode ")[-1].split(" (got")[0]
    check_captured(plan, [int(word) for word in words.split()], DECODE_GRAPHS)


def test_the_sizes_that_launch_asks_for_straddle_nothing(plan: StrategyFile) -> None:
    sizes = sizes_for(plan.modes["decode"])
    assert straddled(plan.modes["decode"], sizes) == []
    assert max(sizes) == ENDS[-1]


def test_every_padded_batch_lies_in_the_range_of_its_graph(plan: StrategyFile) -> None:
    sizes = sizes_for(plan.modes["decode"])
    for batch in range(1, ENDS[-1] + 1):
        padded = min(size for size in sizes if size >= batch)
        assert plan.range_of("decode", batch) is plan.range_of("decode", padded)


# ---- prefills, which run eagerly where a graph would pad them to more than twice their tokens ------------------------

PREFILL_ENDS = (16, 256)  # of `strategy`


@pytest.mark.parametrize("captured", [[4, 8, 12, 16, 32], [16, 256], [8, 16], [8], [], [40, 64]])
def test_prefills_that_no_graph_takes_out_of_their_range_are_fine(plan: StrategyFile, captured: list[int]) -> None:
    check_captured(plan, captured, PREFILL_GRAPHS)
    check_within(plan, captured, PREFILL_GRAPHS)


@pytest.mark.parametrize("captured", [[4, 20, 64], [32], [8, 24]])
def test_a_prefill_graph_that_would_serve_two_ranges_is_refused_with_the_sizes_to_capture(
    plan: StrategyFile, captured: list[int]
) -> None:
    with pytest.raises(RefusedError, match="--cuda-graph-bs-prefill") as refused:
        check_captured(plan, captured, PREFILL_GRAPHS)
    words = str(refused.value).split("--cuda-graph-bs-prefill ")[-1].split(" (got")[0]
    assert "16" in words.split()
    check_captured(plan, [int(word) for word in words.split()], PREFILL_GRAPHS)


def test_a_prefill_graph_beyond_the_last_tokens_of_the_plan_is_refused(plan: StrategyFile) -> None:
    with pytest.raises(RefusedError, match="ends at 256 prefill tokens") as refused:
        check_within(plan, [4, 16, 512], PREFILL_GRAPHS)
    assert "start with --cuda-graph-bs-prefill 4 16 256 (got '4 16 512')" in str(refused.value)


def test_every_replayed_prefill_lies_in_the_range_of_its_graph(plan: StrategyFile) -> None:
    ranges = (a_range(1, 5, PLAIN), a_range(6, 21, PLAIN), a_range(22, 100, PLAIN), a_range(101, 256, PLAIN))
    file = strategy(modes={"prefill": ranges})
    sizes = with_ends(ranges, range(4, 257, 4))
    assert max(sizes) == PREFILL_ENDS[-1]
    for tokens in range(1, PREFILL_ENDS[-1] + 1):
        padded = min(size for size in sizes if size >= tokens)
        if padded <= 2 * tokens:
            assert file.range_of("prefill", tokens) is file.range_of("prefill", padded)


# ---- what a replay counts --------------------------------------------------------------------------------------------


class Runner:
    """Like SGLang's: a captured batch size is replayed, another runs eagerly.

    A decode graph holds the model's forward. A prefill graph holds its body alone, which is called by itself when it is
    captured; to replay it, the runner puts the replay in the body's place and calls the model's forward.
    """

    def __init__(self, hooks: SchedulerHooks) -> None:
        self.hooks = hooks
        self.decode_cuda_graph_runner = SimpleNamespace(bs=0)

    def model(self, mode: str, rows: int, body: Any = None, tail: Any = None) -> None:
        def forward(model: Any, ids: Any, positions: torch.Tensor, batch: Any) -> None:
            (body or self.body)(ids, positions, batch)
            if tail is not None:
                tail()

        self.hooks.around_model(forward, None, None, torch.zeros(rows), batch_of(mode))

    def body(self, ids: Any, positions: torch.Tensor, batch: Any) -> None:
        self.hooks.around_body(self._layers, None, ids, positions, batch)

    def capture_body(self, rows: int) -> None:
        self.body(None, torch.zeros(rows), batch_of("EXTEND"))

    def _layers(self, model: Any, ids: Any, positions: torch.Tensor, batch: Any) -> None:
        forwards, x = self.hooks.forwards, torch.ones(len(positions), 4)
        with forwards.embedding():
            forwards.all_reduce(lambda group, x: x, FakeGroup(), x)
        for layer in range(2):
            for boundary in ("attn_out", "mlp_out"):
                forwards.sum(layer, boundary, x)

    def serve(self, mode: str, rows: int, padded: int | None = None, **parts: Any) -> None:
        def forward(runner: Runner, batch: Any) -> Any:
            if padded is None:
                self.model(mode, rows)
            elif mode == "EXTEND":
                self.hooks.around_prefill_graph(self.replay_body, padded, **parts)
            else:
                self.decode_cuda_graph_runner.bs = padded
            return SimpleNamespace(can_run_graph=padded is not None)

        self.hooks.around_runner(forward, self, batch_of(mode))

    def replay_body(self, padded: int, replay: Any = lambda *_: None, tail: Any = None) -> None:
        self.model("EXTEND", padded, body=replay, tail=tail)


def batch_of(mode: str) -> Any:
    return SimpleNamespace(forward_mode=SimpleNamespace(name=mode))


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


def test_a_captured_body_counts_nothing_and_each_replay_of_it_once(runner: Runner, plan: StrategyFile) -> None:
    for size in (32, 16):
        for _ in range(3):
            runner.capture_body(size)  # two warm-ups and the capture
    assert of_rank(runner.hooks.forwards)["forwards"] == []
    for tokens, padded in ((12, 16), (20, 32), (32, 32)):
        runner.serve("EXTEND", tokens, padded)
    runner.serve("EXTEND", 40)  # no graph is that large
    told = of_rank(runner.hooks.forwards)
    assert {(f["mode"], f["range"]): (f["forwards"], f["rows"]) for f in told["forwards"]} == {
        ("prefill", 0): (1, 16),
        ("prefill", 1): (3, 104),
    }
    assert differences(plan, told) == []


def test_a_replay_after_one_that_failed_counts_as_any_other(runner: Runner, plan: StrategyFile) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("out of memory")

    runner.capture_body(16)
    with pytest.raises(RuntimeError, match="out of memory"):
        runner.serve("EXTEND", 12, 16, replay=fails)
    runner.serve("EXTEND", 12)
    runner.serve("EXTEND", 12, 16)
    told = of_rank(runner.hooks.forwards)
    assert [f["forwards"] for f in told["forwards"]] == [2]
    assert differences(plan, told) == []


def test_the_replay_of_a_body_from_elsewhere_is_an_error(runner: Runner) -> None:
    runner.capture_body(16)
    with pytest.raises(BoundaryError, match=r"not captured under the plan.*prefill, 24 tokens|prefill, 24 tokens"):
        runner.serve("EXTEND", 20, 24)


def test_ops_that_run_beside_the_graph_that_holds_them_are_an_error(runner: Runner) -> None:
    runner.capture_body(16)
    with pytest.raises(BoundaryError, match="beside the graph"):
        runner.serve("EXTEND", 16, 16, replay=runner.body)


def test_a_graph_that_runs_outside_the_models_forward_is_an_error(runner: Runner) -> None:
    runner.capture_body(16)
    with pytest.raises(BoundaryError, match="outside a forward of the model"), runner.hooks.forwards.serving():
        runner.hooks.around_prefill_graph(lambda: None)


def test_an_all_reduce_behind_a_replayed_body_is_told(runner: Runner) -> None:
    forwards = runner.hooks.forwards
    runner.capture_body(16)
    runner.serve("EXTEND", 16, 16, tail=lambda: forwards.all_reduce(lambda group, x: x, FakeGroup(), torch.ones(1, 4)))
    assert of_rank(forwards)["unplanned"] == {"prefill": 1}


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
