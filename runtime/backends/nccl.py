"""NCCL on NVIDIA GPUs."""

from __future__ import annotations

import torch

from .base import Backend


class NcclBackend(Backend):
    """torch.distributed over NCCL."""

    name = "nccl"
    device_type = "cuda"

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise ImportError("torch sees no CUDA device; plan for the hardware that is there (cpu-gloo on a CPU)")

    def device(self, local_rank: int) -> torch.device:
        """GPU of the local rank, made current."""
        torch.cuda.set_device(local_rank)
        return torch.device("cuda", local_rank)


BACKEND = NcclBackend
