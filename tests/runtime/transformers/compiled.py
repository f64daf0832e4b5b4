"""Runs on a rank: forwards through torch.compile'd graphs under a plan, against the same without."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from transformers import StaticCache

from commplan.planner.strategy.file import StrategyFile
from commplan.runtime import Executor, load_model
from commplan.runtime.errors import RefusedError

from ..parity import Named, forward, reference, sharded
from ..prompts import requests

STEPS = 2
SHAPES = ((2, 7), (3, 5), (2, 4), (3, 2))  # from two requests on: torch.compile makes a graph of its own for one


class Compiled(NamedTuple):
    """What compiled forwards did on this rank."""

    error: float
    graphs: list[tuple[str, int]]
    """(mode, range) in which a graph was made, one entry for each graph."""
    eager_counts: dict[Any, tuple[int, int]]
    compiled_counts: dict[Any, tuple[int, int]]


def compiled(checkpoint: str, plan: Named, shapes: tuple[tuple[int, int], ...] = SHAPES) -> Compiled:
    executor = load_model(checkpoint, plan.file)
    _run(executor, checkpoint, shapes)
    eager = _counts(executor)
    executor.counters.reset()
    graphs: list[tuple[str, int]] = []

    def noting(module: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append((executor.program.mode, executor.program.index))
        return module.forward

    executor.compile(backend=noting)
    error = _run(executor, checkpoint, shapes)
    torch._dynamo.reset()
    counts = _counts(executor)
    executor.close()
    return Compiled(error, graphs, eager, counts)


def _run(executor: Executor, checkpoint: str, shapes: tuple[tuple[int, int], ...]) -> float:
    """Largest error of a prefill and decode steps of every (requests, tokens)."""
    worst = 0.0
    for batch, seq in shapes:
        ids, cache = requests()[:batch], StaticCache(config=executor.model.config, max_cache_len=seq + STEPS)
        pieces = [ids[:, :seq], *(ids[:, seq + step : seq + step + 1] for step in range(STEPS))]
        modes = ["prefill", *["decode"] * STEPS]
        # Cloned: a graph is guarded by where in its storage a view begins.
        got = [forward(executor, mode, piece.clone(), cache) for mode, piece in zip(modes, pieces, strict=True)]
        wanted = reference(checkpoint)[:batch, : seq + STEPS]
        worst = max(worst, (torch.cat(got, 1) - wanted).abs().nan_to_num(float("inf")).max().item())
    return worst


def _counts(executor: Executor) -> dict[Any, tuple[int, int]]:
    return {count.key: (count.calls, count.rows) for count in executor.counters.executed()}


def refusal_to_compile(checkpoint: str, file: StrategyFile) -> str:
    executor = sharded(checkpoint, file)
    try:
        executor.compile()
    except RefusedError as error:
        return str(error)
    return "went through"
