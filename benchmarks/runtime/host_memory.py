"""Our own kernels over pinned host memory that ranks share: for GPUs that do not reach each other's memory. A trial.

The kernels are those of symmetric memory; only where rows land is another place. A receiver looks for them over PCIe.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from commplan.runtime.kernels.peer_impls import Room
from commplan.runtime.kernels.peer_kernels import PeerKernels
from commplan.runtime.kernels.room import half_bytes
from commplan.runtime.kernels.symmetric import ABSENT_8, ABSENT_16, Workspace
from commplan.runtime.ranks.groups import Group

FOLDER = Path("/dev/shm")
PORTABLE, MAPPED = 1, 2  # of cudaHostRegister
LOOKS = 1 << 18  # of a receiver, before it gives up


def peers_in_host_memory(group: Group, width: int, rows: int) -> Any:
    """Kernels for up to so many rows; every rank of the group calls this."""
    os.environ["COMMPLAN_DEPENDENT_LAUNCH"] = "off"
    plain, small = half_bytes(group.size, width, Room(rows=rows, int8_gather_rows=rows))
    device = torch.device("cuda", torch.cuda.current_device())
    spaces = [
        _workspace(group, name, -(-size // 16) * 16, absent, device)
        for name, size, absent in (("plain", plain, ABSENT_16), ("small", small, ABSENT_8))
    ]
    state = torch.zeros(1, dtype=torch.int64, device=device)
    error = torch.zeros(1, dtype=torch.int32, device="cpu", pin_memory=True)
    peers = PeerKernels(group, spaces[0], spaces[1], state, error)
    peers.looks = LOOKS
    return peers


def _workspace(group: Group, name: str, half: int, absent: int, device: torch.device) -> Workspace:
    dtype = torch.int16 if absent == ABSENT_16 else torch.int8
    paths = [FOLDER / f"commplan-{os.environ['MASTER_PORT']}-{name}-{rank}" for rank in range(group.size)]
    paths[group.rank].write_bytes(bytes(2 * half))
    dist.barrier()
    maps = [torch.from_file(str(p), shared=True, size=2 * half // dtype.itemsize, dtype=dtype) for p in paths]
    for each in maps:
        status = torch.cuda.cudart().cudaHostRegister(each.data_ptr(), 2 * half, PORTABLE | MAPPED)
        if int(status) != 0:
            raise RuntimeError(f"cudaHostRegister: {status}")
    maps[group.rank].fill_(absent)
    dist.barrier()
    torch.cuda.synchronize()
    paths[group.rank].unlink()
    return Workspace(half, torch.tensor([m.data_ptr() for m in maps], dtype=torch.int64, device=device), maps)
