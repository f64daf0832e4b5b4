"""Process groups: tp over all ranks, attn_tp over a DP group, attn_dp over the dp axis, and a control group.

Ranks are numbered so that a DP group is a run of attn_tp neighbours: rank = dp_rank * attn_tp + attn_tp_rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch.distributed as dist

from commplan.planner.strategy.file import GroupName, Parallelism

from ..errors import RefusedError


@dataclass(frozen=True)
class Group:
    """One process group as a rank sees it. `handle` is None for a group of one."""

    name: GroupName | Literal["control"]
    handle: Any
    size: int
    rank: int


@dataclass(frozen=True)
class Groups:
    """All groups of a rank. `control` is a gloo group for agreement, apart from the data path."""

    parallelism: Parallelism
    tp: Group
    attn_tp: Group
    attn_dp: Group
    control: Group

    def of(self, name: GroupName) -> Group:
        """The group of a name in the words of the strategy file."""
        group: Group = getattr(self, name)
        return group

    def close(self) -> None:
        """Give the groups back, each with its threads and sockets; the default group stays."""
        handles = {id(g.handle): g.handle for g in (self.tp, self.attn_tp, self.attn_dp, self.control) if g.handle}
        for handle in handles.values():
            if handle is not dist.group.WORLD:
                dist.destroy_process_group(handle)


@contextmanager
def temporary_groups() -> Iterator[None]:
    """Give back the gloo groups that are made within: each has threads that poll.

    transformers' loader makes six groups of one rank for mesh dimensions that nothing uses here. Elsewhere groups cost
    nothing until they are used.
    """
    before = _made()
    yield
    _give_back_since(before)


@contextmanager
def given_back_if_refused() -> Iterator[None]:
    """The same where a refusal, which every rank raises alike, ends what the groups were for; the process may go on."""
    before = _made()
    try:
        yield
    except RefusedError:
        _give_back_since(before)
        raise


def _made() -> set[Any]:
    """The groups of this process, the default one among them."""
    from torch.distributed.distributed_c10d import _world

    return set(_world.pg_map)


def _give_back_since(before: set[Any]) -> None:
    if before:  # else the default group was made within, and the process with it
        for handle in _made() - before:
            if dist.get_backend(handle) == "gloo":
                dist.destroy_process_group(handle)


def control_group(timeout_s: float) -> Group:
    """All ranks over gloo; every rank must call this, and it needs no plan to do so."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return Group("control", None, 1, 0)
    handle = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
    return Group("control", handle, dist.get_world_size(), dist.get_rank())


def make_groups(parallelism: Parallelism, timeout_s: float, control: Group | None = None) -> Groups:
    """Build the groups; every rank must call this, for the same plan. Refuses a world of another size."""
    world = dist.get_world_size() if dist.is_initialized() else 1
    if world != parallelism.tp:
        raise RefusedError(
            f"the plan is for {parallelism.tp} ranks; start it with torchrun --nproc-per-node {parallelism.tp}",
            field="parallelism.tp",
            value=world,
        )
    alone = Group("tp", None, 1, 0)
    if world == 1:
        return Groups(parallelism, alone, alone, alone, alone)
    rank, attn_tp = dist.get_rank(), parallelism.attn_tp
    timeout = timedelta(seconds=timeout_s)
    control = control or control_group(timeout_s)
    tp = Group("tp", dist.group.WORLD, world, rank)
    if parallelism.attn_dp == 1:
        return Groups(parallelism, tp, tp, alone, control)
    rows = [list(range(g * attn_tp, (g + 1) * attn_tp)) for g in range(parallelism.attn_dp)]
    columns = [[j + g * attn_tp for g in range(parallelism.attn_dp)] for j in range(attn_tp)]
    return Groups(
        parallelism,
        tp,
        _my_group("attn_tp", rows, rank, timeout),
        _my_group("attn_dp", columns, rank, timeout),
        control,
    )


def _my_group(name: GroupName, members: list[list[int]], rank: int, timeout: timedelta) -> Group:
    """Every rank creates every group, in the same order; each keeps its own."""
    mine = None
    for ranks in members:
        handle = dist.new_group(ranks, timeout=timeout) if len(ranks) > 1 else None
        if rank in ranks:
            mine = Group(name, handle, len(ranks), ranks.index(rank))
    assert mine is not None
    return mine
