"""The strategy files that commplan ships for Ascend, on models of full size.

Token counts: where each range begins, and the largest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from commplan.planner.strategy.file import StrategyFile, load
from commplan.runtime.bound.counts import expected_calls
from commplan.runtime.transformers.executor import Executor
from commplan.runtime.transformers.experts import AllToAllExperts

from .fake_models import executor_of
from .fake_npu import fake_npu, traffic
from .fake_world import FakeWorld
from .planned_calls import Forward, planned_calls

TESTS = Path(__file__).parents[1]
PLANS = sorted(path.stem for path in (TESTS / "golden").glob("*.yaml") if "backend: hccl" in path.read_text())


@pytest.fixture
def _experts_answer_by_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows an all-to-all MoE sends to whom depends on the data, and fake tensors have none."""
    monkeypatch.setattr(AllToAllExperts, "forward", lambda self, x, index, weight: torch.empty_like(x))


def test_there_are_plans_for_qwen_and_deepseek() -> None:
    assert {load(TESTS / "golden" / f"{name}.yaml").model.architecture for name in PLANS} >= {
        "Qwen3ForCausalLM",
        "DeepseekV3ForCausalLM",
    }


@pytest.mark.usefixtures("_experts_answer_by_shape")
@pytest.mark.parametrize("name", PLANS)
def test_a_shipped_plan_calls_what_it_says_on_the_last_rank(fake_world: FakeWorld, name: str) -> None:
    strategy = load(TESTS / "golden" / f"{name}.yaml")
    config = full_size_config(strategy)
    rank = strategy.parallelism.tp - 1
    executor = executor_of(config, strategy, fake_world(strategy.parallelism, rank))
    for mode, ranges in strategy.modes.items():
        for tokens in (*(plan.first for plan in ranges), ranges[-1].last):
            forward = Forward(tokens, 1, 1) if mode == "decode" else Forward(1, tokens, 1)
            calls = run(executor, mode, forward)
            planned = planned_calls(strategy, mode, forward, config.get_text_config().vocab_size, rank)
            if strategy.model.architecture.startswith("Qwen3_5"):  # its norm is none that the NPU's kernels compute
                planned = [call for call in planned if "rms_norm" not in call.name]
            assert calls == planned, (mode, tokens)
    assert executor.counters.calls() == expected_calls(strategy, executor.forwards)


def full_size_config(strategy: StrategyFile) -> Any:
    folder = TESTS / "planner" / "descriptions" / "hf_configs"
    config = json.loads((folder / f"{strategy.model.name.lower()}.json").read_text())
    config.pop("quantization_config", None)  # the FP8 checkpoint's; the shapes are the same
    return AutoConfig.for_model(**config)


def run(executor: Executor, mode: str, forward: Forward) -> Any:
    with fake_npu(), traffic() as calls, executor.forward(mode):
        ids = torch.zeros(forward.batch, forward.seq, dtype=torch.int64, device="npu")
        logits = executor.model(ids, use_cache=False, logits_to_keep=forward.kept).logits
    assert logits.shape[:2] == (forward.batch, forward.kept)
    return calls
