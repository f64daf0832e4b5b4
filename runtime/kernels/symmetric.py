"""Memory that all ranks of a group can write to: torch symmetric memory, peer to peer, without multicast.

A Workspace is one buffer per rank, filled with the value that no row holds (rows.py), and the addresses of all of them.
Calls of the group alternate between the halves, whichever of its workspaces they use. That is enough: a rank in call
n + 2 has got in call n + 1 what every peer sent in it, and a peer sends that only after its call n, when it has emptied
the half that n + 2 fills. A rank that has given up a row has not got it, so it sends nothing any more (calls.py). Rows
that are pushed have a workspace and rules of their own (pushed.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..ranks.groups import Group

ABSENT_16, ABSENT_8 = -32768, -128  # as in rows.py


@dataclass(frozen=True)
class Workspace:
    """One kind of rows of one group.

    half_bytes   size of a half
    peers        int64 [N]: address of every rank's buffer, on the device
    buffer       this rank's own, and what keeps the others mapped
    views        every rank's buffer as a tensor here, where copies go there too
    """

    half_bytes: int
    peers: Tensor
    buffer: Any
    views: tuple[Tensor, ...] = ()


def make_workspace(group: Group, device: torch.device, half_bytes: int, absent: int, viewed: bool = False) -> Workspace:
    """Allocate and fill a workspace; every rank of the group must call this. `viewed`: with views, of bytes."""
    import torch.distributed._symmetric_memory as symmetric_memory

    half_bytes = -(-half_bytes // 16) * 16
    dtype = torch.int16 if absent == ABSENT_16 else torch.int8
    buffer = symmetric_memory.empty(2 * half_bytes // dtype.itemsize, dtype=dtype, device=device)
    handle = symmetric_memory.rendezvous(buffer, group.handle)
    buffer.fill_(absent)
    peers = torch.tensor(handle.buffer_ptrs, dtype=torch.int64, device=device)
    torch.cuda.synchronize(device)
    dist.barrier(group=group.handle, device_ids=[device.index])  # nobody sends before all are empty
    torch.cuda.synchronize(device)
    views = [handle.get_buffer(rank, buffer.shape, buffer.dtype) for rank in range(group.size if viewed else 0)]
    return Workspace(half_bytes, peers, (buffer, handle), tuple(views))
