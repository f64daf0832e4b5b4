"""Memory that all ranks of a group can write to: torch symmetric memory, peer to peer, without multicast.

A Workspace is one buffer per rank, filled with the value that no row holds (rows.py), and the addresses of all of them.
Calls alternate between its two halves. That is enough: a rank that is in call n + 2 has got rows of call n + 1 from
every peer, and a peer sends those only after its call n, when it has emptied the half that n + 2 fills.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..groups import Group
from .calls import STATE_LENGTH

ABSENT_16, ABSENT_8 = -32768, -128  # as in rows.py


@dataclass(frozen=True)
class Workspace:
    """One kind of rows of one group.

    half_bytes   size of a half
    peers        int64 [N]: address of every rank's buffer, on the device
    state        int64 [3] on the device: calls.py
    error        int32 [1] in pinned host memory: not 0 once a row has not come in time
    buffer       this rank's own, and what keeps the others mapped
    """

    half_bytes: int
    peers: Tensor
    state: Tensor
    error: Tensor
    buffer: Any


def make_workspace(group: Group, device: torch.device, half_bytes: int, absent: int, error: Tensor) -> Workspace:
    """Allocate and empty a workspace; every rank of the group must call this."""
    import torch.distributed._symmetric_memory as symmetric_memory

    half_bytes = -(-half_bytes // 16) * 16
    dtype = torch.int16 if absent == ABSENT_16 else torch.int8
    buffer = symmetric_memory.empty(2 * half_bytes // dtype.itemsize, dtype=dtype, device=device)
    handle = symmetric_memory.rendezvous(buffer, group.handle)
    buffer.fill_(absent)
    peers = torch.tensor(handle.buffer_ptrs, dtype=torch.int64, device=device)
    state = torch.zeros(STATE_LENGTH, dtype=torch.int64, device=device)
    torch.cuda.synchronize(device)
    dist.barrier(group=group.handle, device_ids=[device.index])  # nobody sends before all are empty
    torch.cuda.synchronize(device)
    return Workspace(half_bytes, peers, state, error, (buffer, handle))
