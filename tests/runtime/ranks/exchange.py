"""What ranks do in test_exchange.py: meet, tell each other values, and look where they listen."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from commplan.runtime.ranks.agreement import exchange_over, gather_json
from commplan.runtime.ranks.groups import control_group
from commplan.runtime.ranks.rendezvous import meet


def listening() -> list[str]:
    """Addresses on which this process accepts connections."""
    inodes = set()
    for handle in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{handle}")
        except OSError:  # that of the listing itself
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/self/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                words = fields[1].split(":")[0]
                raw = b"".join(bytes.fromhex(words[i : i + 8])[::-1] for i in range(0, len(words), 8))
                found.append(str(ipaddress.ip_address(raw)))
    return found


def where_it_listens() -> list[str]:
    """After the ranks have met and made a gloo group."""
    ranks = meet(60.0)
    ranks.exchange([None, {}])
    ranks.join("gloo", torch.device("cpu"), 60.0)
    exchange_over(control_group(60.0))("there")
    return listening()


def tell(values: list[Any]) -> list[Any]:
    """What both ranks get where each brings its own value."""
    return gather_json(values[dist.get_rank()], dist.group.WORLD, dist.get_world_size())


def tell_bytes(length: int) -> str:
    """How an exchange ends in which rank 1 announces another length than a rank may tell."""
    if dist.get_rank() == 0:
        try:
            gather_json("mine", dist.group.WORLD, 2)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "it went on"
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(2)]
    dist.all_gather(lengths, torch.tensor([length]))
    return ""
