"""Cases of `collectives.py` for attention DP: our pairs, two calls of NCCL, and the trivial way.

    gather   [rows of a DP group], partial over its ranks, to the sums of all groups
    scatter  [rows of all groups], partial over all ranks, to the sums of this rank's group

"gather pair dp2 two-shot": of two DP groups. Token counts are rows of a group. The trivial way is one all-reduce over
all ranks: of a buffer with zeros where other groups' rows go, or of all rows, of which one group's are kept.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

import torch
import torch.distributed as dist
from rivals import Case, Inputs, Makers, Outputs
from torch import Tensor

PAIR = re.compile(r"(?P<way>gather|scatter) pair dp(?P<dp>\d+)(?: (?P<how>one-shot|two-shot|trivially))?$")


class Split(NamedTuple):
    """Ranks by DP groups: this rank's group and place in it, and its process groups."""

    dp: int
    tp: int
    group: int
    neighbours: dist.ProcessGroup
    across: dist.ProcessGroup


@cache
def split(dp: int) -> Split:
    """Every rank asks for the same, in the same order."""
    world, rank = dist.get_world_size(), dist.get_rank()
    tp = world // dp
    within = [dist.new_group(list(range(g * tp, (g + 1) * tp))) for g in range(dp)]
    across = [dist.new_group(list(range(place, world, tp))) for place in range(tp)]
    return Split(dp, tp, rank // tp, within[rank // tp], across[rank % tp])


def pair_case(owner: str, what: str, makers: Makers, i: Inputs) -> Case | None:
    """Of `ours` or `nccl`; None where there are no such groups."""
    found = PAIR.fullmatch(what)
    if found is None:
        raise SystemExit(f"{owner} {what}: no such case; a pair is `gather pair dp2 two-shot`")
    dp = int(found["dp"])
    if dp >= makers.world or makers.world % dp:
        return None
    ranks, rows = split(dp), len(i.x)
    x = i.x if found["way"] == "gather" else torch.cat([i.x.roll(n, 1) for n in range(dp)])
    wanted = _wanted(found["way"], x, ranks, rows)
    if owner == "nccl":
        return _by_nccl(found["way"], x, ranks, wanted)
    peers = makers.peers_of()
    if found["how"] == "trivially":
        return _trivially(found["way"], makers, x, ranks, wanted)
    call = peers.gather_sum if found["way"] == "gather" else peers.scatter_sum
    algorithm = found["how"] and found["how"].replace("-", "_")
    return Case(lambda: (call(x, ranks.tp, algorithm), None, None), x, wanted=wanted, alone=True)


def _wanted(way: str, x: Tensor, ranks: Split, rows: int) -> Outputs:
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x)
    every = torch.stack([part.float() for part in parts])
    if way == "gather":
        return every.view(ranks.dp, ranks.tp, rows, -1).sum(1).flatten(0, 1), None, None
    return every.sum(0)[ranks.group * rows : (ranks.group + 1) * rows], None, None


def _by_nccl(way: str, x: Tensor, ranks: Split, wanted: Outputs) -> Case:
    work, rows = x.clone(), len(x)
    if way == "gather":
        out = x.new_empty(ranks.dp * rows, x.shape[1])

        def gathered() -> Outputs:
            dist.all_reduce(work, group=ranks.neighbours)
            dist.all_gather_into_tensor(out, work, group=ranks.across)
            return out, None, None

        return Case(gathered, work, wanted=wanted, alone=True, sums_itself=True)
    out = x.new_empty(rows // ranks.dp, x.shape[1])

    def scattered() -> Outputs:
        dist.reduce_scatter_tensor(out, x, group=ranks.across)
        dist.all_reduce(out, group=ranks.neighbours)
        return out, None, None

    return Case(scattered, x, wanted=wanted, alone=True)


def _trivially(way: str, makers: Makers, x: Tensor, ranks: Split, wanted: Outputs) -> Case:
    peers, rows = makers.peers_of(), len(x)
    if way == "gather":
        buffer = x.new_zeros(ranks.dp * rows, x.shape[1])
        buffer[ranks.group * rows :][:rows] = x
        return Case(lambda: (peers.all_reduce(buffer), None, None), buffer, wanted=wanted, alone=True)
    mine = slice(ranks.group * rows // ranks.dp, (ranks.group + 1) * rows // ranks.dp)
    return Case(lambda: (peers.all_reduce(x)[mine], None, None), x, wanted=wanted, alone=True)
