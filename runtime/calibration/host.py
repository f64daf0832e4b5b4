"""Timing the host: what a launch and a call cost within an eager forward, where Python goes from module to module.

In a loop of one call alone, caches are warm and a call costs a half or a third of that. So a layer of the size of a
model's is timed, of modules and torch ops on rows so few that the device always waits; then with a call in it, twice.
All ranks run in step, so that what they wait for each other is in the times, as in a forward.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from commplan.planner.strategy.file import KINDS

from ..backends import Backend
from ..kernels.peer_impls import PEER_IMPLS
from ..ranks.groups import Group
from .own import OwnCollectives, is_own
from .point_calls import Point
from .timing import Call, Timer

LAUNCHES = 28
"""Kernels that a StandInLayer launches: counted by a test."""
LAUNCH = "launch"
_PLAIN_SUMS = tuple(name for name, kind in KINDS.items() if kind.is_plain and kind.folds)
_ROWS, _HEADS, _HEAD = 4, 4, 16
_WIDTH = _HEADS * _HEAD
_LAYERS = 20  # of a forward: so many that its start does not count
_CALLS = 2  # in a layer: one behind attention, one behind the MLP


class _Norm(nn.Module):
    """RMSNorm op by op, as models have it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """8 launches."""
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * wide.to(x.dtype)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """5 launches."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


class StandInLayer(nn.Module):
    """Attention and MLP of a small decoder layer, as eager models spell them, without a norm before either."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(_WIDTH, _WIDTH, bias=False) for _ in range(4))
        self.gate, self.up, self.down = (nn.Linear(_WIDTH, _WIDTH, bias=False) for _ in range(3))
        self.q_norm = _Norm(_HEAD)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, call: Callable[[], Any] | None) -> Tensor:
        """[rows, width] to the same, with a call behind each half."""
        shape = (1, x.shape[0], _HEADS, _HEAD)
        q = _rotated(self.q_norm(self.q(x).view(shape)).transpose(1, 2), cos, sin)
        k = _rotated(self.k(x).view(shape).transpose(1, 2), cos, sin)
        v = self.v(x).view(shape).transpose(1, 2)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = self.o(attended.transpose(1, 2).reshape(x.shape[0], _WIDTH))
        if call is not None:
            call()
        x = self.down(F.silu(self.gate(x)) * self.up(x))
        if call is not None:
            call()
        return x


class HostTimer:
    """Samples of what the host needs, in us."""

    def __init__(self, device: torch.device, timer: Timer, dtype: torch.dtype = torch.bfloat16) -> None:
        self._device, self._timer = device, timer
        self._layers = nn.ModuleList(StandInLayer() for _ in range(_LAYERS)).to(device, dtype)
        self._x = torch.randn(_ROWS, _WIDTH, dtype=dtype, device=device)
        self._angles = [torch.randn(_ROWS, _HEAD, dtype=dtype, device=device) for _ in range(2)]

    def launches(self, count: int) -> list[float]:
        """Samples of one launch of a layer."""
        self._forward(None)
        return [max(self._forward(None) / LAUNCHES, 0.01) for _ in range(count)]

    def calls(self, call: Call, count: int) -> list[float]:
        """Samples of one call: what layers with it take longer than those without, in turns."""
        self._forward(call)
        return [max((self._forward(call) - self._forward(None)) / _CALLS, 0.01) for _ in range(count)]

    def _forward(self, call: Call | None) -> float:
        """us of a layer, with everything launched and done."""
        self._timer.agree(True)  # brings the ranks in step
        self._synchronize()
        start = time.perf_counter()
        x = self._x
        for layer in self._layers:
            x = layer(x, *self._angles, call)
        self._synchronize()
        return (time.perf_counter() - start) / _LAYERS * 1e6

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def host_samples(
    todo: list[Point],
    own: OwnCollectives,
    backend: Backend,
    groups: dict[int, Group],
    timer: Timer,
    ranks: int,
    count: int,
) -> dict[str, list[float]]:
    """Samples by what was timed: a launch, and a call of the library and of each impl of ours that runs over all ranks.

    Of an impl of ours its smallest point is called: the host does not care for the size.
    """
    device = timer.device
    host = HostTimer(device, timer)
    found = {LAUNCH: host.launches(count)}
    if ranks in groups:
        x = torch.zeros(_ROWS, _WIDTH, dtype=torch.bfloat16, device=device)
        found[backend.name] = host.calls(lambda: backend.all_reduce(x, groups[ranks]), count)
    for impl in PEER_IMPLS:
        sums = [p for p in todo if p.kind == impl and p.name in _PLAIN_SUMS and p.group_size == ranks]
        measurable = [p for p in sums if is_own(p) and own.has(p)]
        if measurable:
            found[impl] = host.calls(own.call_of(min(measurable)), count)
            own.check()
    return found
