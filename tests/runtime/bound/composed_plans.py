"""Runs on a rank: forwards under plans whose sums are composed around the library."""

from __future__ import annotations

from commplan.planner.strategy.file import StrategyFile
from commplan.runtime import load_model
from commplan.runtime.bound.counts import expected_calls

from ..parity import Named, forward, reference
from ..prompts import requests
from ..transformers.compiled import Compiled, compiled


def executed(checkpoint: str, file: StrategyFile) -> tuple[bool, set[str], float]:
    """(are the counts other than planned, impls that ran, relative error of the logits of a prefill)."""
    executor = load_model(checkpoint, file)
    for length in (2, 7):
        got = forward(executor, "prefill", requests()[:2, :length])
    wanted = reference(checkpoint)[:2, :7]
    error = float((got - wanted).norm() / wanted.norm())
    calls = executor.counters.calls()
    executor.close()
    return calls != expected_calls(file, executor.forwards), {impl for *_, impl in calls}, error


def compiled_counts(checkpoint: str, plan: Named) -> Compiled:
    return compiled(checkpoint, plan, ((2, 7), (3, 3)))  # of the long range twice: a graph and its replay
