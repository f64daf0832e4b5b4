"""How many ranks the tests and benchmarks of GPUs run on: what the machine has, or what COMMPLAN_RANKS says."""

from __future__ import annotations

import os

_VARIABLE = "COMMPLAN_RANKS"


def gpus() -> int:
    """Of this machine."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def ranks() -> int:
    """The largest power of two of GPUs up to 8; on fewer than two GPUs two ranks, which share one."""
    if said := os.environ.get(_VARIABLE):
        return int(said)
    return max(2, 1 << (min(gpus(), 8).bit_length() - 1)) if gpus() else 2
