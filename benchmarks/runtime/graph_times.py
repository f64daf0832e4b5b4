"""Time of collectives in CUDA graphs, with what stands around them taken off; and of eager calls on the host."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from families import GEMM, SPACED
from rivals import Case, Inputs, Outputs
from torch import Tensor

REPEATS = 10
Call = Callable[[], Any]


class Timer:
    """Captures and replays. Every rank makes the same calls in the same order."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._one = device, torch.zeros(1, device=device)

    def space(self) -> None:
        """A tiny kernel."""
        self._one.add_(1.0)

    def graph(self, call: Call) -> tuple[torch.cuda.CUDAGraph, Any]:
        """Ten calls in a graph, and what the last gave. It has not run."""
        found, last = torch.cuda.CUDAGraph(), None
        with torch.cuda.graph(found):
            for _ in range(REPEATS):
                last = call()
        return found, last

    def slower(self, us: float) -> float:
        """Of the ranks'."""
        both = torch.tensor(us, device=self._device, dtype=torch.float64)
        dist.all_reduce(both, op=dist.ReduceOp.MAX)
        return both.item()


class Timed:
    """A case in a setting, captured, with the graph of what stands around it."""

    def __init__(self, timer: Timer, name: str, case: Case, setting: str, inputs: Inputs) -> None:
        self._timer = timer
        for _ in range(3):
            case.now()
        torch.cuda.synchronize()
        dist.barrier()
        around: Call | None = None
        if setting == GEMM:
            around = lambda: torch.mm(inputs.left, inputs.right, out=case.given)  # noqa: E731
            around()

            def call() -> Outputs:
                torch.mm(inputs.left, inputs.right, out=case.given)
                return case.call()
        elif name in SPACED:
            around = timer.space

            def call() -> Outputs:
                last = case.call()
                timer.space()
                return last
        else:
            call = case.call
        self._graph, self.last = timer.graph(call)
        if case.after_capture is not None:
            case.after_capture()
        self._around = timer.graph(around)[0] if around is not None else None
        self.replay()

    def replay(self) -> None:
        """Once, and wait."""
        self._graph.replay()
        torch.cuda.synchronize()
        dist.barrier()

    def us(self, samples: int) -> tuple[float, float]:
        """(us a call without what stands around it, us of that) of the slower rank: both measured in turn."""
        whole, off = [], []
        for _ in range(samples):
            whole.append(replayed_us(self._graph) / REPEATS)
            if self._around is not None:
                off.append(replayed_us(self._around) / REPEATS)
        taken = statistics.median(off) if off else 0.0
        return self._timer.slower(statistics.median(whole) - taken), self._timer.slower(taken)


def replayed_us(graph: torch.cuda.CUDAGraph, replays: int = 1) -> float:
    """Of one replay, of so many in a row."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    graph.replay()  # brings the ranks in step
    start.record()
    for _ in range(replays):
        graph.replay()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) * 1e3 / replays


def host_us(call: Call, bursts: int = 10, calls: int = 40) -> float:
    """Median us of an eager call on this host, in bursts that fit the GPU's queue."""
    found = []
    for _ in range(bursts):
        for _ in range(calls):
            begin = time.perf_counter()
            call()
            found.append(time.perf_counter() - begin)
        torch.cuda.synchronize()
    return statistics.median(found) * 1e6


def inputs_of(tokens: int, hidden: int, inner: int, device: torch.device) -> Inputs:
    """Fresh rows by a GEMM, the same residual and weight on all ranks, and what must come out."""
    rank, world = dist.get_rank(), dist.get_world_size()
    own = torch.Generator(device=device).manual_seed(1000 * tokens + rank)
    same = torch.Generator(device=device).manual_seed(77 + tokens)
    left = torch.randn(tokens, inner, device=device, generator=own).to(torch.bfloat16)
    right = (torch.randn(inner, hidden, device=device, generator=own) / inner**0.5).to(torch.bfloat16)
    x = torch.mm(left, right)
    residual = torch.randn(tokens, hidden, device=device, generator=same).to(torch.bfloat16)
    weight = (torch.rand(hidden, device=device, generator=same) + 0.5).to(torch.bfloat16)
    parts = [torch.empty_like(x) for _ in range(world)]
    dist.all_gather(parts, x)
    summed = torch.stack([part.float() for part in parts]).sum(0)
    kept = summed + residual.float()
    normed = kept * torch.rsqrt(kept.pow(2).mean(-1, keepdim=True) + 1e-6) * weight.float()
    return Inputs(x, residual, weight, (summed, normed, kept), left, right)


def error_of(found: Outputs, every: Outputs) -> float:
    """The largest relative L2 error of what came out, infinite where it is not finite; `every`: what must come out."""
    errors = []
    for got, wanted in zip(found, every, strict=True):
        if got is not None and wanted is not None:
            error = ((got.float() - wanted).norm() / wanted.norm()).item()
            errors.append(float("inf") if math.isnan(error) else error)
    return max(errors)


def differing(found: Outputs) -> float:
    """The share of elements that are not the same on all ranks."""
    shares = []
    for mine in found:
        if mine is not None:
            first: Tensor = mine.clone()
            dist.broadcast(first, 0)
            shares.append((first != mine).float().mean())
    most = torch.stack(shares).max()
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return most.item()
