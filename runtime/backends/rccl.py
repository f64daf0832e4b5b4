"""RCCL on AMD GPUs: torch for ROCm calls the devices cuda and the library nccl. Nobody has run it here: unverified."""

from __future__ import annotations

from .nccl import NcclBackend


class RcclBackend(NcclBackend):
    """As NCCL, without the collectives of our own."""

    name = "rccl"
    peer_limits = None


BACKEND = RcclBackend
