"""Peers composed of a backend's library collectives and plain torch: the reference that our kernels are held against.

It runs wherever the backend does, at the speed of many small kernels. No backend of the runtime offers it: a plan that
names kernels gets kernels, or is refused.

Shapes as in kernels/peers.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from commplan.planner.strategy.file import INT8_ALL_REDUCE
from commplan.planner.strategy.wire_formats import WIRES
from commplan.planner.strategy.words import ScaleGroup
from commplan.runtime.backends import Backend
from commplan.runtime.collectives.row_moves import pad_rows
from commplan.runtime.collectives.steps import format_of, quantized
from commplan.runtime.collectives.wire_sums import WireSum
from commplan.runtime.kernels.peer_impls import Room, room_of
from commplan.runtime.kernels.peers import Peers
from commplan.runtime.kernels.rms_norm import rms_norm
from commplan.runtime.ranks.groups import Group


class ReferencePeers(Peers):
    """The contract of Peers, step by step."""

    def __init__(self, backend: Backend, group: Group, width: int, room: Room) -> None:
        self.group, self.width, self.room = group, width, room
        self.closed = False
        self._backend = backend

    def all_reduce(self, x_TH: Tensor, algorithm: str | None = None) -> Tensor:
        """As the contract says."""
        self._take(x_TH, room_of("all_reduce", algorithm, x_TH.shape[0], 1))
        return self._sum(x_TH)

    def all_reduce_norm(
        self,
        x_TH: Tensor,
        residual_TH: Tensor | None,
        weight_H: Tensor,
        eps: float,
        algorithm: str | None = None,
        overwrite: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """As the contract says."""
        return _normed(self.all_reduce(x_TH, algorithm), residual_TH, weight_H, eps, overwrite)

    def int8_all_reduce(self, x_TH: Tensor, algorithm: str) -> Tensor:
        """As the contract says."""
        self._take(x_TH, room_of("int8_all_reduce", algorithm, x_TH.shape[0], 1))
        if x_TH.shape[0] == 0:
            return torch.empty_like(x_TH)
        wire = format_of("int8", self._backend)
        return quantized(INT8_ALL_REDUCE.ways[algorithm], self.group, wire, self._backend)(x_TH)

    def int8_all_reduce_norm(
        self,
        x_TH: Tensor,
        algorithm: str,
        residual_TH: Tensor | None,
        weight_H: Tensor,
        eps: float,
        overwrite: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """As the contract says."""
        return _normed(self.int8_all_reduce(x_TH, algorithm), residual_TH, weight_H, eps, overwrite)

    def quantized_all_reduce(self, x_TH: Tensor, algorithm: str, wire: str, group: ScaleGroup) -> Tensor:
        """As the contract says."""
        self._take(x_TH, room_of("quantized_all_reduce", algorithm, x_TH.shape[0], 1))
        if x_TH.shape[0] == 0:
            return torch.empty_like(x_TH)
        return WireSum(self._backend, self.group, WIRES[wire].grouped(group), self.width, algorithm).sum(x_TH)

    def quantized_all_reduce_norm(
        self,
        x_TH: Tensor,
        algorithm: str,
        wire: str,
        group: ScaleGroup,
        residual_TH: Tensor | None,
        weight_H: Tensor,
        eps: float,
        overwrite: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """As the contract says."""
        summed = self.quantized_all_reduce(x_TH, algorithm, wire, group)
        return _normed(summed, residual_TH, weight_H, eps, overwrite)

    def reduce_scatter(self, x_TH: Tensor) -> Tensor:
        """As the contract says."""
        self._take(x_TH, room_of("reduce_scatter", None, x_TH.shape[0], 1))
        if x_TH.shape[0] == 0:
            return torch.empty_like(x_TH)
        size = self.group.size
        return self._backend.reduce_scatter(pad_rows(x_TH, -(-x_TH.shape[0] // size) * size), self.group)

    def reduce_scatter_norm(
        self, x_TH: Tensor, residual_SH: Tensor | None, weight_H: Tensor, eps: float, overwrite: bool = False
    ) -> tuple[Tensor, Tensor]:
        """As the contract says."""
        return _normed(self.reduce_scatter(x_TH), residual_SH, weight_H, eps, overwrite)

    def all_gather(self, x_SH: Tensor) -> Tensor:
        """As the contract says."""
        self._take(x_SH, room_of("all_gather", None, x_SH.shape[0] * self.group.size, 1))
        return self._backend.all_gather(x_SH, self.group) if x_SH.shape[0] else torch.empty_like(x_SH)

    def gather_sum(self, x_GH: Tensor, attn_tp: int, algorithm: str | None = None) -> Tensor:
        """As the contract says; every rank gathers all partials and sums those of each DP group."""
        rows = x_GH.shape[0]
        attn_dp = self.group.size // attn_tp
        self._take(x_GH, room_of("all_reduce_all_gather", None, attn_dp * rows, attn_dp))
        if rows == 0:
            return torch.empty_like(x_GH)
        everyone = self._backend.all_gather(x_GH, self.group).view(attn_dp, attn_tp, rows, self.width)
        return everyone.sum(1, dtype=torch.float32).to(x_GH.dtype).view(attn_dp * rows, self.width)

    def scatter_sum(self, x_TH: Tensor, attn_tp: int, algorithm: str | None = None) -> Tensor:
        """As the contract says; every rank has the whole sum and keeps the rows of its DP group."""
        attn_dp = self.group.size // attn_tp
        self._take(x_TH, room_of("reduce_scatter_all_reduce", None, x_TH.shape[0], attn_dp))
        rows = x_TH.shape[0] // attn_dp
        first = self.group.rank // attn_tp * rows
        return self._sum(x_TH)[first : first + rows].clone()

    def check(self) -> None:
        """Libraries raise by themselves."""

    def close(self) -> None:
        """There is nothing to give back."""
        self.closed = True

    def _sum(self, x: Tensor) -> Tensor:
        return self._backend.all_reduce(x.clone(), self.group) if x.shape[0] else torch.empty_like(x)

    def _take(self, x: Tensor, needed: Room) -> None:
        """The runtime's part of the contract."""
        assert not self.closed
        assert x.is_contiguous() and x.shape[1] == self.width
        assert self.room.holds(needed), f"{needed}, made for {self.room}"


def _normed(
    sum_RH: Tensor, residual_RH: Tensor | None, weight_H: Tensor, eps: float, overwrite: bool
) -> tuple[Tensor, Tensor]:
    if residual_RH is None:
        return rms_norm(sum_RH, weight_H, eps), sum_RH
    total = residual_RH.add_(sum_RH) if overwrite else residual_RH + sum_RH
    return rms_norm(total, weight_H, eps), total
