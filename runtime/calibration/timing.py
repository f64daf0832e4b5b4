"""Timing a call on all ranks in step.

On a CUDA device the call is captured in a graph, many times over, and the graph is timed by events: what is measured
is the time on the device, without the host's launches. Elsewhere a loop is timed by the clock. All ranks must make the
same calls in the same order; rank 0 decides how often a call is repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from ..ranks.groups import Group

Call = Callable[[], Any]
_SAMPLE_US = 500.0  # a sample lasts about this long
_FEW_REPEATS, _MOST_REPEATS = 8, 64


class Timer:
    """Samples of calls, in us per call."""

    def __init__(self, device: torch.device, control: Group) -> None:
        self.device = self._device = device
        self._control = control
        self._cuda = device.type == "cuda"
        self._spacer = torch.zeros(1, device=device)
        self._spacer_us = 0.0
        if self._cuda:
            with no_gradients():
                self._spacer_us = median(self.samples(self._space, 9))

    def samples(self, call: Call, count: int, *, spaced: bool = False, without: Call | None = None) -> list[float]:
        """`count` samples of one call; `without`: what it does besides, measured behind it and taken off.

        `spaced` is for calls that are nothing but a collective: in a graph a tiny kernel is put behind each, and taken
        off again. Forwards have kernels between collectives, and NCCL's kernels in an unbroken row slow each other
        down: by half at 24 in a row on two H200s, to twice the time at 64.
        """
        if without is not None:
            whole, off = self.samples(call, count, spaced=spaced), self.samples(without, count)
            return [max(a - b, 0.01) for a, b in zip(whole, off, strict=True)]
        for _ in range(2):
            call()
        self._synchronize()
        if self._cuda:
            return self._by_graph(call, count, spaced)
        repeats = self._repeats(self._loop(call, 3))
        return [self._loop(call, repeats) for _ in range(count)]

    def _loop(self, call: Call, repeats: int) -> float:
        self._synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        self._synchronize()
        return (time.perf_counter() - start) / repeats * 1e6

    def _by_graph(self, call: Call, count: int, spaced: bool) -> list[float]:
        """By a graph that is long enough for the host to stay ahead of it."""
        off = self._spacer_us if spaced else 0.0
        graph = self._captured(call, _FEW_REPEATS, spaced)
        repeats = self._repeats(self._replayed(graph, _FEW_REPEATS))
        if repeats > _FEW_REPEATS:
            graph = self._captured(call, repeats, spaced)
        repeats = max(repeats, _FEW_REPEATS)
        return [max(self._replayed(graph, repeats) - off, 0.01) for _ in range(count)]

    def _captured(self, call: Call, repeats: int, spaced: bool) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            for _ in range(repeats):
                call()
                if spaced:
                    self._space()
        return graph

    def _replayed(self, graph: torch.cuda.CUDAGraph, repeats: int) -> float:
        event: Any = torch.cuda.Event
        start, end = event(enable_timing=True), event(enable_timing=True)
        graph.replay()  # brings the ranks in step
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        us: float = start.elapsed_time(end) * 1e3 / repeats
        return us

    def _space(self) -> None:
        self._spacer.add_(1.0)

    def _repeats(self, us: float) -> int:
        """How many calls fill a sample; rank 0's answer."""
        return int(min(_MOST_REPEATS, max(1.0, _SAMPLE_US / max(self._agreed(us), 0.1))))

    def _synchronize(self) -> None:
        if self._cuda:
            torch.cuda.synchronize(self._device)

    def _agreed(self, value: float) -> float:
        """Rank 0's value."""
        if self._control.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(shared, src=0, group=self._control.handle)
        return float(shared)

    def agree(self, value: bool) -> bool:
        """Rank 0's answer."""
        return bool(self._agreed(float(value)))


def no_gradients() -> AbstractContextManager[Any]:
    """What every measurement runs under."""
    return torch.inference_mode() if torch.is_grad_enabled() else nullcontext()
