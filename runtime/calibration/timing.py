"""Timing a call on all ranks in step.

On a CUDA device the call is captured in a graph, many times over, and the graph is timed by events: what is measured
is the time on the device, without the host's launches. Elsewhere a loop is timed by the clock. All ranks must make the
same calls in the same order; rank 0 decides how often a call is repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist

from ..groups import Group

Call = Callable[[], Any]
_SAMPLE_US = 400.0  # a sample lasts about this long
_MOST_REPEATS = 64


class Timer:
    """Samples of calls, in us per call."""

    def __init__(self, device: torch.device, control: Group) -> None:
        self._device, self._control = device, control
        self._cuda = device.type == "cuda"

    def samples(self, call: Call, count: int) -> list[float]:
        """`count` samples of one call."""
        for _ in range(2):
            call()
        self._synchronize()
        pilot = self._agreed(self._loop(call, 3))
        repeats = int(min(_MOST_REPEATS, max(1.0, _SAMPLE_US / max(pilot, 0.1))))
        if not self._cuda:
            return [self._loop(call, repeats) for _ in range(count)]
        return self._by_graph(call, repeats, count)

    def _loop(self, call: Call, repeats: int) -> float:
        self._synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        self._synchronize()
        return (time.perf_counter() - start) / repeats * 1e6

    def _by_graph(self, call: Call, repeats: int, count: int) -> list[float]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            for _ in range(repeats):
                call()
        found = []
        for _ in range(count):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            graph.replay()  # brings the ranks in step
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            found.append(start.elapsed_time(end) * 1e3 / repeats)
        del graph
        return found

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
