"""The most bytes of activations and workspaces that a rank holds in a forward."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..cost.memory import MemoryCosts
from ..cost.workload import work_of
from ..descriptions.setup import Setup
from ..search.graph import Plan
from ..search.planning import ModePlanner
from ..strategy.file import StrategyFile
from ..strategy.file.legality import walk
from ..strategy.layout import with_group
from .verdict import Peak

_LOGIT_BYTES = 4  # the logits of all ranks, in fp32 for sampling


def peak_activation_bytes(planner: ModePlanner, plan: Plan, tokens: int) -> int:
    """The most bytes of activations that a rank holds at any boundary."""
    peak = planner.builder.memory.peak_bytes
    return max(peak(e.boundary, e.op, e.before, e.after, e.shape, tokens) for e, _ in plan.counted)


def with_logits(setup: Setup, forwards: Iterable[tuple[str, int, float, float]]) -> Peak:
    """The largest peak of some forwards: mode, tokens, bytes at boundaries under the plan and under all-reduce."""
    plan = plain = 0.0
    for mode, tokens, of_plan, of_plain in forwards:
        rows = work_of(mode, setup.deployment.modes[mode], tokens).logits
        logits = float(rows * setup.model.vocab_size * _LOGIT_BYTES)
        plan, plain = max(plan, of_plan, logits), max(plain, of_plain, logits)
    return Peak(plan, plain)


def peak_of(setup: Setup, strategy: StrategyFile) -> Peak:
    """The peak of a strategy file's plans at the ends of their ranges, and that of plain all-reduce."""
    forwards = []
    for mode, ranges in strategy.modes.items():
        planner, last = ModePlanner(setup, mode), ranges[-1].last
        plain = peak_activation_bytes(planner, planner.plain(last), last)
        forwards.append(
            (mode, last, max(_at_boundaries(setup, strategy, mode, index) for index in range(len(ranges))), plain)
        )
    return with_logits(setup, forwards)


def _at_boundaries(setup: Setup, strategy: StrategyFile, mode: str, index: int) -> int:
    memory, plan, p = MemoryCosts(setup), strategy.modes[mode][index], strategy.parallelism
    known: dict[object, int] = {}
    for layer, boundary, op, before, after in walk(strategy, plan):
        shape = strategy.layer_shape(layer or 0)
        spelled = with_group(boundary, replace(op, producer=None), before, shape, p)
        key = (boundary, spelled, before, after, shape)
        if key not in known:
            known[key] = memory.peak_bytes(boundary, spelled, before, after, shape, plan.last)
    return max(known.values())
