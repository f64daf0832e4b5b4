"""What does the executor cost per boundary? Range lookup, dispatch and counters, on one CPU rank without communication.

    python benchmarks/runtime/overhead.py

The forward of a 32-layer plan is walked with everything that computes taken out: norms, attention and MLPs return what
they are given, and no op communicates. Figures are medians of CPU time over many walks, by boundary. The last row adds
the tensor views that any decoder layer makes. The agreement before a forward (over gloo, once) is not in it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

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
from commplan.runtime import Executor
from commplan.runtime.backends import Backend
from commplan.runtime.bound.bound_ops import BoundIn, BoundOut
from commplan.runtime.bound.sizes import sizes_of
from commplan.runtime.ranks.groups import Group, Groups
from commplan.runtime.transformers.layer import attention_of, cross_in, cross_out, layer_forward
from commplan.runtime.transformers.stream import Stream

LAYERS, RANGES, TOKENS = 32, 16, 8
WALKS, ROUNDS = 50, 40
TARGET_US = 2.0
NONE = Op("none")


class NoBackend(Backend):
    """Computes nothing: what it is given comes back."""

    def rms_norm(self, x: torch.Tensor, norm: nn.Module) -> torch.Tensor:  # noqa: ARG002
        return x

    def add_rms_norm(self, x: torch.Tensor, residual: torch.Tensor, norm: nn.Module) -> tuple[Any, Any]:  # noqa: ARG002
        return x, residual


@dataclass(frozen=True)
class Row:
    """One line of the table: microseconds per boundary."""

    what: str
    per_boundary_us: float


def plan() -> StrategyFile:
    """One rank, so that no op communicates; many ranges, so that the lookup has something to look up."""
    layers = (LayerOps(NONE, NONE, NONE, NONE),) * LAYERS
    ranges = tuple(RangePlan(1 + 64 * n, 64 * (n + 1), NONE, layers, NONE) for n in range(RANGES))
    return StrategyFile(
        model=ModelStamp("bench", "target", "Qwen3ForCausalLM", LAYERS, 16, 0, frozenset(), "0"),
        hardware=HardwareStamp("cpu", "gloo", "0"),
        deployment=DeploymentStamp("bench", "fp32", "0"),
        executor="transformers",
        parallelism=Parallelism(1),
        numerics="exact",
        modes={"prefill": ranges, "decode": ranges},
    )


def executor_without_model() -> tuple[Executor, list[Any]]:
    """An executor whose layers compute nothing."""
    alone = Group("tp", None, 1, 0)
    executor = Executor(plan(), Groups(Parallelism(1), alone, alone, alone, alone), NoBackend())
    layers = []
    for index in range(LAYERS):
        layer = SimpleNamespace(_commplan=executor.now, _commplan_index=index, input_layernorm=None)
        layer.post_attention_layernorm = None
        layer.self_attn = _attention
        executor.now.attentions.append(attention_of(layer))
        executor.now.mlps.append(_nothing)
        layers.append(layer)
    executor.build()
    return executor, layers


def _attention(hidden_states: torch.Tensor, **_: Any) -> tuple[torch.Tensor, None]:
    return hidden_states, None


def _nothing(rows: torch.Tensor) -> torch.Tensor:
    return rows


def microseconds(walk: Callable[[], None]) -> float:
    """Median over rounds of the mean CPU time of a few walks: other processes do not count."""
    walk()
    found = []
    for _ in range(ROUNDS):
        start = time.thread_time_ns()
        for _ in range(WALKS):
            walk()
        found.append((time.thread_time_ns() - start) / WALKS / 1000)
    return statistics.median(found)


def measure() -> list[Row]:
    """The rows of the table."""
    executor, layers = executor_without_model()
    rows_TH = torch.zeros(TOKENS, 16)
    sizes = sizes_of(Parallelism(1), TOKENS, TOKENS)
    stream = Stream(rows_TH, rows_TH, None, sizes, 1, TOKENS)
    executor._begin("prefill", 1, TOKENS, TOKENS)
    of_layers = executor.program.layers
    ops = [op for layer in of_layers for op in (layer.attn_in, layer.attn_out, layer.mlp_in, layer.mlp_out)]

    def begin() -> None:
        executor._begin("decode", 1, TOKENS, TOKENS)
        executor.forwards.clear()

    def cross() -> None:
        for op in ops:
            if isinstance(op, BoundIn):
                cross_in(executor.now, op, rows_TH, sizes)
            elif isinstance(op, BoundOut):
                cross_out(executor.now, op, rows_TH, rows_TH, sizes)

    def forward() -> None:
        begin()
        current: Any = stream
        for layer in layers:
            current = layer_forward(layer, current)

    count = len(ops)
    return [
        Row("start of a forward: lookup among 16 ranges, sizes", microseconds(begin) / count),
        Row("dispatch and counters at each boundary", microseconds(cross) / count),
        Row("the whole forward, streams and views included", microseconds(forward) / count),
    ]


def main() -> None:
    torch.set_num_threads(1)
    found = measure()
    print(f"Executor overhead per boundary, {LAYERS} layers of 4 boundaries, no communication")
    for row in found:
        print(f"  {row.what:52} {row.per_boundary_us:6.2f} us")
    overhead = found[0].per_boundary_us + found[1].per_boundary_us
    verdict = "within" if overhead <= TARGET_US else "MISSES"
    print(f"  lookup, dispatch and counters together: {overhead:.2f} us, {verdict} the target of {TARGET_US:.0f} us")


if __name__ == "__main__":
    main()
