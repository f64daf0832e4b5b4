"""One rank of a world whose other ranks do not exist: torch's fake process group answers every collective at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import pytest
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from commplan.planner.strategy.file import Parallelism
from commplan.runtime.ranks.groups import Groups, make_groups


class FakeWorld:
    """Makes the groups of a rank; forgets all process groups at the end."""

    def __enter__(self) -> Self:
        self._patch = pytest.MonkeyPatch()
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.undo()
        if dist.is_initialized():
            dist.destroy_process_group()

    def __call__(self, p: Parallelism, rank: int) -> Groups:
        """The groups of `rank`, made by the runtime's own `make_groups`."""
        if dist.is_initialized():
            dist.destroy_process_group()
        dist.init_process_group("cpu:fake,npu:fake", rank=rank, world_size=p.tp, store=FakeStore())
        self._patch.setattr(dist, "new_group", _without_gloo(dist.new_group))
        groups = make_groups(p, timeout_s=60.0)
        self._patch.undo()
        return groups


def _without_gloo(new_group: Callable[..., Any]) -> Callable[..., Any]:
    """The control group would wait for the other ranks over gloo; here it is fake like the others."""

    def make(ranks: list[int] | None = None, *, timeout: Any = None, backend: str | None = None) -> Any:
        assert backend in (None, "gloo")
        return new_group(ranks, timeout=timeout)

    return make


def tensor_parallel_mesh(groups: Groups) -> Any:
    """The mesh that transformers' loader shards over."""
    return init_device_mesh("cpu", (groups.tp.size,))
