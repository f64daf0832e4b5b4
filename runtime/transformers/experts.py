"""Experts spread over the ranks: whole experts per rank instead of a slice of each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..backends import Backend
from ..ranks.groups import Group


class LocalExperts(nn.Module):
    """All rows are here; this rank runs its own experts, and the ranks' results sum up to the whole.

    Tokens routed elsewhere get weight 0.
    """

    def __init__(self, experts: nn.Module, first: int, count: int) -> None:
        super().__init__()
        self.experts = experts
        self.first, self.count = first, count

    def forward(self, x_RH: Tensor, index_RK: Tensor, weight_RK: Tensor) -> Tensor:
        """[R, H] rows with their routing to partial [R, H]."""
        mine = (index_RK >= self.first) & (index_RK < self.first + self.count)
        out: Tensor = self.experts(x_RH, (index_RK - self.first) * mine, weight_RK * mine)
        return out


class AllToAllExperts(nn.Module):
    """Each rank has a shard of the tokens: rows travel to their experts and back, and come out complete."""

    def __init__(self, experts: nn.Module, count: int, group: Group, backend: Backend) -> None:
        super().__init__()
        self.experts = experts
        self.count = count
        self._group, self._backend = group, backend

    def forward(self, x_RH: Tensor, index_RK: Tensor, weight_RK: Tensor) -> Tensor:
        """[R, H] shard with its routing to complete [R, H]."""
        rows, choices = index_RK.shape
        flat = index_RK.reshape(-1)
        order = torch.argsort(flat // self.count, stable=True)
        sent = torch.bincount(flat // self.count, minlength=self._group.size)
        received = self._backend.all_to_all(sent, self._group)
        outgoing, incoming = sent.tolist(), received.tolist()
        exchange = self._backend.all_to_all_uneven
        token = order // choices
        arrived = exchange(x_RH[token].contiguous(), outgoing, incoming, self._group)
        expert = exchange(flat[order] % self.count, outgoing, incoming, self._group)
        done = arrived
        if arrived.shape[0]:
            ones = weight_RK.new_ones(arrived.shape[0], 1)
            done = self.experts(arrived, expert.view(-1, 1), ones)
        back = exchange(done.contiguous(), incoming, outgoing, self._group)
        out = torch.zeros(rows, x_RH.shape[1], dtype=torch.float32, device=x_RH.device)
        weighted = back * weight_RK.reshape(-1)[order].unsqueeze(-1)
        return out.index_add_(0, token, weighted.float()).to(x_RH.dtype)
