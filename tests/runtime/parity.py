"""Runs on a rank: the forwards of a case under a plan, against the same model in one process."""

from __future__ import annotations

import gc
import math
from collections import Counter
from functools import cache
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, DynamicCache

from commplan.planner.strategy.file import StrategyFile
from commplan.runtime import Executor, load_model

from .cases import Case, Share, cases, split
from .legal_plans import Plan
from .planned_traffic import planned_calls, seen_calls
from .prompts import requests
from .strategy_files import world_of

DECODE_STEPS = 2
RANDOM = "random"


class Named(NamedTuple):
    """A strategy file with a name for reports, and the ops of its modes where they were written in tests."""

    name: str
    file: StrategyFile
    prefill: Plan | None = None
    decode: Plan | None = None


_executors: dict[tuple[str, Any, str], Executor] = {}


def sharded(checkpoint: str, file: StrategyFile) -> Executor:
    """An executor of the plan. The last one is kept: each holds process groups, and each group threads that poll."""
    key = (checkpoint, file.parallelism, file.deployment.activations)
    if key not in _executors:
        while _executors:
            _executors.popitem()[1].close()
            gc.collect()  # its programs and its model hold each other
        _executors[key] = load_model(checkpoint, file)
    executor = _executors[key]
    executor.switch(file)
    return executor


@cache
def single_process(checkpoint: str) -> Any:
    """The whole model, as transformers runs it."""
    return AutoModelForCausalLM.from_pretrained(checkpoint).eval()


@cache
def reference(checkpoint: str) -> torch.Tensor:
    """[requests, length, vocabulary]: logits of the whole table."""
    with torch.no_grad():
        logits: torch.Tensor = single_process(checkpoint)(requests(), use_cache=False).logits
    return logits


def forward(executor: Executor, mode: str, ids: torch.Tensor, cache: Any = None, **kwargs: Any) -> torch.Tensor:
    """Logits of one forward."""
    with torch.no_grad(), executor.forward(mode):
        logits: torch.Tensor = executor.model(ids, past_key_values=cache, use_cache=cache is not None, **kwargs).logits
    return logits


def mine(executor: Executor, case: Case) -> Share:
    """This rank's part of a case."""
    return case.shares[executor.groups.attn_dp.rank if executor.groups.parallelism.attn_dp > 1 else 0]


def largest_error(executor: Executor, checkpoint: str, case: Case, steps: int) -> float:
    """Largest logit error over a prefill and `steps` decode steps of this rank's requests; NaN counts as infinite."""
    first, batch, seq = mine(executor, case)
    rows = slice(first, first + batch)
    ids, wanted = requests()[rows], reference(checkpoint)[rows]
    cache = DynamicCache(config=executor.model.config) if batch else None
    got = [forward(executor, "prefill", ids[:, :seq], cache)]
    got += [forward(executor, "decode", ids[:, seq + step : seq + step + 1], cache) for step in range(steps)]
    logits, wanted = torch.cat(got, dim=1), wanted[:, : seq + steps]
    if logits.shape != wanted.shape:
        return float("inf")
    error = (logits - wanted).abs().max().item() if batch else 0.0
    return float("inf") if math.isnan(error) else error


def failures(checkpoint: str, plans: list[Named], bound: float) -> list[str]:
    """What went wrong on this rank, plan by plan and case by case: logits out of bounds, ops other than planned."""
    found: list[str] = []
    for number, plan in enumerate(plans):
        executor = sharded(checkpoint, plan.file)
        world = world_of(checkpoint, plan.file.parallelism)
        todo = cases(world.attn_dp)
        if plan.name.startswith(RANDOM):  # dozens of them: each takes a third of the shapes, in turn
            todo = todo[number % 3 :: 3]
        with seen_calls(executor.backend) as seen:
            for case in todo:
                try:
                    error = largest_error(executor, checkpoint, case, DECODE_STEPS)
                except Exception as stopped:
                    raise RuntimeError(f"{plan.name}, {case.name}") from stopped
                if error > bound:
                    found.append(f"{plan.name}, {case.name}: logits differ by {error:.2e}")
        found += [f"{plan.name}: {text}" for text in _miscounted(executor, plan, len(todo))]
        if plan.prefill is not None and plan.decode is not None:
            pieces = (plan.prefill, *DECODE_STEPS * (plan.decode,))
            idle = [not mine(executor, case).batch for case in todo]
            if seen != [call for i in idle for piece in pieces for call in planned_calls(world, piece, idle=i)]:
                found.append(f"{plan.name}: collectives other than planned ran: {seen[:20]} ...")
    return found


def _miscounted(executor: Executor, plan: Named, prefills: int) -> list[str]:
    """Where the counters differ from the file: every op of a mode once per forward of that mode, and nothing else."""
    forwards = {"prefill": prefills, "decode": prefills * DECODE_STEPS}
    planned: Counter[tuple[str, int | None, str, str, str]] = Counter()
    for mode, (ops,) in plan.file.modes.items():
        placed: list[tuple[int | None, str, Any]] = [(None, "embed_out", ops.embed_out), (None, "head_in", ops.head_in)]
        for layer, of_layer in enumerate(ops.layers):
            placed += [(layer, name, of_layer.at(name)) for name in ("attn_in", "attn_out", "mlp_in", "mlp_out")]
        for layer, boundary, op in placed:
            if op.name not in ("none", "fused"):
                planned[mode, layer, boundary, str(op), "local" if op.name == "slice" else "gloo"] += forwards[mode]
    counted = executor.counters.calls()
    return [
        f"{key} ran {counted.get(key, 0)} times, planned {planned[key]}"
        for key in sorted({*counted, *planned}, key=str)
        if counted.get(key, 0) != planned[key]
    ]


def relative_rms(checkpoint: str, plans: list[Named]) -> list[tuple[float, float]]:
    """Sums of squares, of the error and of the reference, of this rank's logits of a prefill and a decode step."""
    found = []
    for plan in plans:
        executor = sharded(checkpoint, plan.file)
        first, batch, seq = mine(executor, split(4, 12, executor.groups.parallelism.attn_dp))
        ids, wanted = requests()[first : first + batch], reference(checkpoint)[first : first + batch, : seq + 1]
        cache = DynamicCache(config=executor.model.config)
        got = [
            forward(executor, "prefill", ids[:, :seq], cache),
            forward(executor, "decode", ids[:, seq : seq + 1], cache),
        ]
        error = torch.cat(got, dim=1) - wanted
        found.append((error.square().sum().item(), wanted.square().sum().item()))
    return found
