"""Sums of a few rows by one kernel, through host memory: for GPUs of one host that do not reach each other's memory.

The kernel and its workspace are those of symmetric memory (kernels/one_shot.py); only where rows land is another place,
pinned memory that all ranks have mapped (kernels/staged/memory.py). A rank writes its rows into the segments of its
peers, and looks in its own for theirs: one way to the host and one look from there, in one launch. Every look at a row
crosses the bus, so it is for the few rows of a decode. Without a GPU the rows are gathered through the same memory by
copies of the host, and summed by torch.

Why it is right there too. Any aligned 4 bytes of a store arrive together over PCIe as well, and a row needs no more
(kernels/rows.py). What emptied a slot comes before what is sent in the next call (kernels/symmetric.py), since kernels
of a stream follow each other: when one begins, all that the one before has written is taken to be seen by the whole
system. So the kernels are launched plainly. Nobody has proved the same of `early`, where programs of the next call are
there while this one still waits, and beside the way over PCIe a dependent launch saves little.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..kernels.peer_impls import Room
from ..kernels.staged.memory import HostMemory, giving_back, refuse_unless_received
from ..ranks.groups import Group
from .plain_one_shot import PlainOneShot

_ALGORITHM = "one_shot"
_NAME = "sums through host memory"
_LOOKS = 1 << 24  # from 1 to 2 us each: half a minute
_SEEN_AT_ONCE = 1 << 15  # bytes that cross the bus while a look goes there and back


class Kernels(Protocol):
    """What performs the sums: PeerKernels, or torch. Methods as Peers has them."""

    looks: int

    def all_reduce(self, x_TH: Tensor, algorithm: str | None = None) -> Tensor:
        """The sum."""

    def all_reduce_norm(
        self,
        x_TH: Tensor,
        residual_TH: Tensor | None,
        weight_H: Tensor,
        eps: float,
        algorithm: str | None = None,
        overwrite: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """(norm of sum + residual, sum + residual)."""

    def check(self) -> None:
        """Raises BoundaryError if a rank was given up."""

    def close(self) -> None:
        """Give back what is theirs."""


class HostOneShot:
    """Sums over a group of up to so many rows of one width and type.

    Calls of a group are made by all ranks in the same order, and by a rank on one stream. Once a row has not come, all
    later results on this rank are NaN, and `check` says why; only a new one helps.
    """

    def __init__(self, kernels: Kernels, memory: HostMemory | None = None) -> None:
        self.kernels, self._memory = kernels, memory

    @classmethod
    def make(cls, group: Group, device: torch.device, dtype: torch.dtype, width: int, rows: int) -> HostOneShot:
        """Every rank of the group must call this, in the same order.

        Raises RefusedError, the same on all ranks, where they do not share the memory of a host.
        """
        if device.type == "cuda":
            made = on_gpus(group, device, dtype, width, rows)
        else:
            made = cls(PlainOneShot.make(group, device, max(rows, 1) * width * dtype.itemsize))
        made._try(group, torch.ones(1, width, dtype=dtype, device=device))
        return made

    def _try(self, group: Group, ones: Tensor) -> None:
        """A row by either half: it is known to work before anything rests on it."""
        ranks = group.size * (group.size + 1) // 2
        found = [self.sum(ones * ((group.rank + 1) * value)) / value for value in (1, 2)]
        right = all(torch.equal(each, ones * ranks) for each in found)
        refuse_unless_received(right, group, ones.device, self.close)

    @property
    def looks(self) -> int:
        """How often a rank looks for a row before it gives up; of more rows than one, for as long."""
        return self.kernels.looks

    @looks.setter
    def looks(self, looks: int) -> None:
        """Of the calls from now on."""
        self.kernels.looks = looks

    # ---- as sums have it --------------------------------------------------------------------------------------------

    def sum(self, x_TH: Tensor) -> Tensor:
        """[T, H] summed over the group. Every rank calls it, with as many rows."""
        return self.kernels.all_reduce(x_TH, _ALGORITHM)

    def sum_norm(
        self, x_TH: Tensor, residual_TH: Tensor | None, weight_H: Tensor, eps: float, *, overwrite: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(RMSNorm of sum + residual, sum + residual); without a residual of the sum alone.

        `overwrite`: nobody needs the old residual any more, and the new one is written in its place.
        """
        return self.kernels.all_reduce_norm(x_TH, residual_TH, weight_H, eps, _ALGORITHM, overwrite)

    # ---- as owners have it ------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises BoundaryError if this rank has given up waiting for a peer. Costs no synchronisation."""
        self.kernels.check()

    def close(self) -> None:
        """Give the memory back. Nothing may be on its way any more, on any rank."""
        self.kernels.close()
        if self._memory is not None:
            self._memory.close()


def on_gpus(group: Group, device: torch.device, dtype: torch.dtype, width: int, rows: int) -> HostOneShot:
    """By our kernels, whose workspace is in host memory. Every rank of the group must call this."""
    from ..kernels.op_launches import Site
    from ..kernels.peer_kernels import PeerKernels, check
    from ..kernels.room import half_bytes
    from ..kernels.symmetric import ABSENT_16, Workspace

    check(group, dtype, width)
    plain, _ = half_bytes(group.size, width, Room(one_shot_rows=max(rows, 1)))
    memory = HostMemory.make(group, device, plain)
    with giving_back(memory, group, device):  # nobody sends before all are empty
        memory.halves[group.rank].view(torch.int16).fill_(ABSENT_16)
        peers = torch.tensor([halves.data_ptr() for halves in memory.halves], dtype=torch.int64, device=device)
        state = torch.zeros(1, dtype=torch.int64, device=device)
        error = torch.zeros(1, dtype=torch.int32, device="cpu", pin_memory=device.type == "cuda")
        site = Site(_NAME, "off", _LOOKS, _SEEN_AT_ONCE)
        space = Workspace(memory.half_bytes, peers, memory)
        kernels = PeerKernels(group, space, None, state, error, site=site)
    return HostOneShot(kernels, memory)


__all__ = ["HostOneShot", "on_gpus"]
