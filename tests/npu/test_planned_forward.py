"""Whole planned forwards on a fake NPU: what reaches torch_npu and HCCL is what the file says, shape by shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from commplan.planner.strategy.file import Parallelism, StrategyFile
from commplan.runtime.bound.counts import expected_calls
from commplan.runtime.ranks.agreement import ForwardShape
from commplan.runtime.transformers import running_forward
from commplan.runtime.transformers.executor import Executor

from ..runtime.legal_plans import World, covering_plans
from .fake_models import executor_of
from .fake_npu import Call, fake_npu, ops_on_npu_tensors, traffic
from .fake_world import FakeWorld
from .planned_calls import Forward, planned_calls
from .plans import ATTENTION_DP, LATENT, UNIFORM, plan_of, strategy_file, uniform_plan
from .tiny_models import DEEPSEEK_V3, MODELS, VOCAB_SIZE, TinyModel

TP4 = Parallelism(4)
TP2_DP2 = Parallelism(4, attn_dp=2)
DP4 = Parallelism(4, attn_dp=4)
LAST_RANK = 3  # holds the fewest rows of the vocabulary, and padding wherever rows do not divide
SHAPES = ((1, 1), (1, 3), (1, 7), (2, 7), (3, 5), (1, 16), (1, 17))  # requests, tokens of each


class Ranks:
    """The sharded model of a rank; plans are switched on it."""

    def __init__(self, world: FakeWorld) -> None:
        self._world = world
        self._key: Any = None
        self._executor: Executor

    def __call__(self, tiny: TinyModel, strategy: StrategyFile, rank: int = LAST_RANK, **changes: Any) -> Executor:
        key = (tiny.architecture, strategy.parallelism, rank, changes)
        if key != self._key:  # a process is one rank at a time
            self._key = key
            groups = self._world(strategy.parallelism, rank)
            self._executor = executor_of(tiny.config(**changes), strategy, groups)
        self._executor.switch(strategy)
        return self._executor


@pytest.fixture(scope="module")
def ranks() -> Any:
    with FakeWorld() as world:
        yield Ranks(world)


def run(
    executor: Executor, mode: str, batch: int, seq: int, cache: Any = None, **kwargs: Any
) -> tuple[Any, list[Call]]:
    """Logits and calls of one forward."""
    with fake_npu(), traffic() as calls, executor.forward(mode):
        ids = torch.zeros(batch, seq, dtype=torch.int64, device="npu")
        out = executor.model(ids, past_key_values=cache, use_cache=cache is not None, **kwargs)
    return out.logits, calls


def check(executor: Executor, mode: str, forward: Forward, logits: Any, calls: list[Call]) -> None:
    rank = executor.groups.tp.rank
    assert calls == planned_calls(executor.strategy, mode, forward, VOCAB_SIZE, rank)
    assert logits.shape == (forward.batch, forward.kept, VOCAB_SIZE)
    assert (logits.device.type, logits.dtype) == ("npu", torch.bfloat16)
    assert executor.counters.calls() == expected_calls(executor.strategy, executor.forwards)


CASES = [
    *((family, TP4, name, ops) for family in MODELS for name, ops in UNIFORM.items()),
    *(("deepseek_v3", TP4, name, ops) for name, ops in LATENT.items()),
    *((family, TP2_DP2, name, ops) for family in MODELS for name, ops in ATTENTION_DP.items()),
]


@pytest.mark.parametrize(
    ("family", "p", "ops"),
    [pytest.param(family, p, ops, id=f"{family}-dp{p.attn_dp}-{name}") for family, p, name, ops in CASES],
)
def test_a_forward_calls_what_the_file_says(ranks: Ranks, family: str, p: Parallelism, ops: Any) -> None:
    tiny = MODELS[family]
    executor = ranks(tiny, strategy_file(tiny, p, uniform_plan(ops, tiny.num_hidden_layers)))
    for batch, seq in SHAPES:
        logits, calls = run(executor, "prefill", batch, seq)
        check(executor, "prefill", Forward(batch, seq, seq), logits, calls)
    logits, calls = run(executor, "prefill", 2, 7, logits_to_keep=1)
    check(executor, "prefill", Forward(2, 7, 1), logits, calls)


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("p", [TP4, TP2_DP2], ids=["dp1", "dp2"])
def test_decode_goes_on_from_the_cache_of_a_prefill(ranks: Ranks, family: str, p: Parallelism) -> None:
    tiny = MODELS[family]
    ops = UNIFORM["tp_sp"] if p.attn_dp == 1 else ATTENTION_DP["scatter_then_gather"]
    executor = ranks(tiny, strategy_file(tiny, p, uniform_plan(ops, tiny.num_hidden_layers)))
    cache = DynamicCache(config=executor.model.config)
    run(executor, "prefill", 3, 5, cache)
    for step in range(2):
        logits, calls = run(executor, "decode", 3, 1, cache)
        check(executor, "decode", Forward(3, 1, 1), logits, calls)
        assert cache.get_seq_length() == 6 + step
    assert cache.layers[0].keys.device.type == "npu"


@pytest.mark.parametrize("rank", range(4))
@pytest.mark.parametrize("p", [TP4, TP2_DP2], ids=["dp1", "dp2"])
def test_every_rank_makes_the_planned_calls(ranks: Ranks, rank: int, p: Parallelism) -> None:
    ops = LATENT["late_gather_and_fold"] if p.attn_dp == 1 else ATTENTION_DP["mixed_comm"]
    executor = ranks(DEEPSEEK_V3, strategy_file(DEEPSEEK_V3, p, uniform_plan(ops, 3)), rank)
    logits, calls = run(executor, "prefill", 1, 7)
    check(executor, "prefill", Forward(1, 7, 7), logits, calls)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_either_attention_works_on_npu_tensors(ranks: Ranks, attention: str) -> None:
    strategy = strategy_file(DEEPSEEK_V3, TP4, uniform_plan(LATENT["tp_sp_late_gather"], 3))
    executor = ranks(DEEPSEEK_V3, strategy, attn_implementation=attention)
    logits, calls = run(executor, "prefill", 2, 7)
    check(executor, "prefill", Forward(2, 7, 7), logits, calls)


_RUNS_ON_NPUS = ("PrivateUse1", "CompositeImplicitAutograd", "CompositeExplicitAutograd")


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("name", ["int8_both", "tp_sp"])
def test_every_op_of_a_forward_has_a_kernel_for_npus(ranks: Ranks, family: str, name: str) -> None:
    tiny = MODELS[family]
    executor = ranks(tiny, strategy_file(tiny, TP4, uniform_plan(UNIFORM[name], tiny.num_hidden_layers)))
    cache = DynamicCache(config=executor.model.config)
    with fake_npu(), ops_on_npu_tensors() as ops, executor.forward("prefill"):
        for seq in (7, 1):
            ids = torch.zeros(2, seq, dtype=torch.int64, device="npu")
            executor.model(ids, past_key_values=cache, use_cache=True)
    assert {"aten::addmm", "npu::npu_add_rms_norm", "c10d::_allgather_base_"} < ops
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    assert [op for op in sorted(ops) if not any(has_kernel(op, key) for key in _RUNS_ON_NPUS)] == []


# ---- every edge of the layout algebra -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("p", [TP4, TP2_DP2, DP4], ids=["dp1", "dp2", "dp4"])
def test_plans_that_use_every_legal_op_call_what_they_say(ranks: Ranks, family: str, p: Parallelism) -> None:
    tiny = MODELS[family]
    world = World(p.tp, p.attn_dp, tiny.latent_width > 0, tiny.num_hidden_layers)
    for number, plan in enumerate(covering_plans(world, least=6, quantized=True)):
        ops = [edge.op for edge in plan]
        executor = ranks(tiny, strategy_file(tiny, p, plan_of(ops)))
        batch, seq = SHAPES[number % len(SHAPES)]
        logits, calls = run(executor, "prefill", batch, seq)
        check(executor, "prefill", Forward(batch, seq, seq), logits, calls)


# ---- DP groups that bring different numbers of tokens ---------------------------------------------------------------


@pytest.fixture
def others_bring(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """`others_bring(((1, 7), (2, 3)))`: (batch, seq) of each DP group, as the ranks would have agreed on it."""

    def agree(shapes: Sequence[tuple[int, int]]) -> None:
        def agreed(groups: Any, mine: ForwardShape) -> list[ForwardShape]:
            assert (mine.batch, mine.seq) == shapes[groups.attn_dp.rank]
            return [
                ForwardShape(mine.mode, batch, seq, batch * seq)
                for batch, seq in shapes
                for _ in range(groups.attn_tp.size)
            ]

        monkeypatch.setattr(running_forward, "agree_on_forward", agreed)

    return agree


def collectives(calls: list[Call]) -> list[Call]:
    return [call for call in calls if call.ranks > 1]


@pytest.mark.parametrize("shapes", [((1, 7), (2, 2)), ((3, 1), (0, 1)), ((0, 1), (1, 5))], ids=str)
def test_unequal_and_empty_dp_groups_meet_in_the_same_collectives(
    ranks: Ranks, others_bring: Callable[[Any], None], shapes: Any
) -> None:
    others_bring(shapes)
    seen: dict[int, list[Any]] = {0: [], 3: []}  # one rank of either group
    for rank, found in seen.items():
        for ops in ATTENTION_DP.values():
            executor = ranks(DEEPSEEK_V3, strategy_file(DEEPSEEK_V3, TP2_DP2, uniform_plan(ops, 3)), rank)
            batch, seq = shapes[executor.groups.attn_dp.rank]
            logits, calls = run(executor, "prefill", batch, seq)
            assert logits.shape == (batch, seq, VOCAB_SIZE)
            assert executor.counters.calls() == expected_calls(executor.strategy, executor.forwards)
            found.append([call._replace(ranks=len(call.ranks)) for call in calls if call.ranks])
    assert seen[0] == seen[3]
