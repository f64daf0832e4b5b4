"""A plan for two ranks and two layers, and a group that sums nothing: for tests without SGLang."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from commplan.planner.strategy.file import (
    DeploymentStamp,
    HardwareStamp,
    LayerOps,
    ModelStamp,
    Op,
    Parallelism,
    RangePlan,
    StrategyFile,
)
from commplan.runtime.bound.counts import Counters
from commplan.runtime.bound.program import Program
from commplan.runtime.servers.sglang.binding import Binding

NONE, PLAIN, TWO_STEPS = Op("none"), Op("all_reduce"), Op("reduce_scatter_all_gather")


class FakeGroup:
    """SGLang's GroupCoordinator, as far as binding and hooks look at it."""

    world_size = 2
    rank_in_group = 0
    device_group = cpu_group = ca_comm = None


def a_range(first: int, last: int, attn_out: Op, mlp_out: Op = PLAIN) -> RangePlan:
    layers = (LayerOps(NONE, attn_out, NONE, mlp_out),) * 2
    return RangePlan(first, last, PLAIN, layers, NONE)


def strategy(**changes: Any) -> StrategyFile:
    """Two ranges each; `changes` replace fields."""
    file = StrategyFile(
        model=ModelStamp("tiny", "target", "Qwen3ForCausalLM", 2, 4, 0, frozenset(), "0" * 16),
        hardware=HardwareStamp("cpu-gloo", "gloo", "0" * 16),
        deployment=DeploymentStamp("tiny", "fp32", "0" * 16),
        executor="sglang",
        parallelism=Parallelism(2),
        numerics="reordered",
        modes={
            "prefill": (a_range(1, 16, PLAIN), a_range(17, 256, TWO_STEPS)),
            "decode": (a_range(1, 2, PLAIN), a_range(3, 8, TWO_STEPS)),
        },
    )
    return replace(file, **changes)


def bind_to(file: StrategyFile) -> Callable[[Counters], dict[str, tuple[Program, ...]]]:
    """The real binding, with sums that return their input."""

    def silent(bound: Any) -> Any:
        return replace(bound, sum=lambda x, sizes: x)

    def programs(counters: Counters) -> dict[str, tuple[Program, ...]]:
        bound = Binding(file, FakeGroup(), FakeGroup(), torch.device("cpu")).programs(counters)
        return {mode: tuple(_with(program, silent) for program in of_mode) for mode, of_mode in bound.items()}

    return programs


def _with(program: Program, change: Callable[[Any], Any]) -> Program:
    layers = tuple(
        replace(layer, attn_out=change(layer.attn_out), mlp_out=change(layer.mlp_out)) for layer in program.layers
    )
    return replace(program, embed_out=change(program.embed_out), layers=layers)
