"""NCCL on NVIDIA GPUs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..kernels.peer_impls import KERNEL_LIMITS, PeerLimits, Room
from ..kernels.wire.layout import RowLayout
from ..kernels.wire.plain import WireRows
from ..kernels.wire.row_sums import RowSums
from ..ranks.groups import Group
from .base import Backend, plain_norm

if TYPE_CHECKING:
    from ..kernels.peers import Peers


class NcclBackend(Backend):
    """torch.distributed over NCCL, with residual add and RMSNorm in one Triton kernel.

    Inside torch.compile the plain expression stands instead: Inductor fuses it by itself.
    """

    name = "nccl"
    peer_limits: PeerLimits | None = KERNEL_LIMITS
    gathers_in_place = True

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise ImportError("torch sees no CUDA device; plan for the hardware that is there (cpu-gloo on a CPU)")
        from ..kernels import add_rms_norm

        self._kernels = add_rms_norm

    def device_count(self) -> int:
        """GPUs that torch sees."""
        return torch.cuda.device_count()

    def device(self, local_rank: int) -> torch.device:
        """GPU of the local rank, made current."""
        torch.cuda.set_device(local_rank)
        return torch.device("cuda", local_rank)

    def peers(self, group: Group, device: torch.device, dtype: torch.dtype, width: int, room: Room) -> Peers:
        """Triton kernels on symmetric memory."""
        kernels = import_module("..kernels.peer_kernels", __package__)  # loaded where a plan has them, and nowhere else
        peers: Peers = kernels.PeerKernels.make(group, device, dtype, width, room)
        return peers

    def wire_rows(self, layout: RowLayout) -> WireRows:
        """Triton kernels, on AMD too; loaded where a plan has them."""
        found: WireRows = import_module("..kernels.wire.launch", __package__).WireKernels(layout)
        return found

    def row_sums(self, rank: int) -> RowSums:
        """The same."""
        found: RowSums = import_module("..kernels.wire.row_sum_launch", __package__).RowSumKernels(rank)
        return found

    def rms_norm(self, x: Tensor, norm: torch.nn.Module) -> Tensor:
        """RMSNorm in one kernel."""
        if torch.compiler.is_compiling() or not plain_norm(norm):
            return super().rms_norm(x, norm)
        return self._kernels.rms_norm(x.contiguous(), norm.weight, norm.variance_epsilon)  # type: ignore[arg-type]

    def add_rms_norm(self, x: Tensor, residual: Tensor, norm: torch.nn.Module) -> tuple[Tensor, Tensor]:
        """Residual add and RMSNorm in one kernel."""
        if torch.compiler.is_compiling() or not plain_norm(norm):
            return super().add_rms_norm(x, residual, norm)
        return self._kernels.add_rms_norm(
            x.contiguous(),
            residual.contiguous(),
            norm.weight,  # type: ignore[arg-type]
            norm.variance_epsilon,  # type: ignore[arg-type]
        )


BACKEND = NcclBackend
