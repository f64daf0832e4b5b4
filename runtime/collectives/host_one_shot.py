"""Sums of a few rows by one kernel, through host memory: for GPUs of one host that do not reach each other's memory.

A rank writes its rows into the segments of its peers, each with a flag behind it, and reads theirs in its own: one way
to the host and two looks from there, in one launch (kernels/staged/one_shot.py). The memory is pinned, and all ranks
have mapped it (kernels/staged/memory.py). It is for the few rows of a decode: what crosses the bus in one kernel takes
its multiprocessors. Without a GPU the rows are gathered through the same memory by copies of the host, and summed by
torch.

Kernels of a stream follow each other, plainly launched: what one has read was read before the next begins to write.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..errors import RefusedError
from ..kernels.staged.memory import OTHERWISE, HostMemory, giving_back, refuse_unless_received
from ..ranks.groups import Group
from .plain_one_shot import PlainOneShot

_ALGORITHM = "one_shot"
_NAME = "sums through host memory"
_LOOKS = 1 << 24  # from 1 to 2 us each: half a minute


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
        """How often a rank looks for a row before it gives up."""
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
    from ..kernels.staged.one_shot import MOST_ROWS, record_bytes
    from ..kernels.symmetric import Workspace

    check(group, dtype, width)
    if rows > MOST_ROWS:
        raise RefusedError(f"up to {MOST_ROWS} rows go in one launch: {OTHERWISE}", field="rows", value=rows)
    memory = HostMemory.make(group, device, (group.size - 1) * max(rows, 1) * record_bytes(width))
    with giving_back(memory, group, device):
        peers = torch.tensor([halves.data_ptr() for halves in memory.halves], dtype=torch.int64, device=device)
        state = torch.zeros(1, dtype=torch.int64, device=device)
        error = torch.zeros(1, dtype=torch.int32, device="cpu", pin_memory=device.type == "cuda")
        site = Site(_NAME, "off", _LOOKS, host_width=width)
        space = Workspace(memory.half_bytes, peers, memory)
        kernels = PeerKernels(group, space, None, state, error, site=site)
    return HostOneShot(kernels, memory)


__all__ = ["HostOneShot", "on_gpus"]
