"""Kernels compiled for a Hopper GPU that is not there: what would be launched is noted instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, ClassVar

import torch


class Launcher:
    """Stands where Triton's low-level launcher does; notes (compiled source, metadata, what it is called with)."""

    launches: ClassVar[list[tuple[Any, Any, tuple[Any, ...]]]] = []

    def __init__(self, source: Any, metadata: Any) -> None:
        self.source, self.metadata = source, metadata

    def __call__(self, *given: Any) -> None:
        self.launches.append((self.source, self.metadata, given))


@contextmanager
def hopper() -> Iterator[list[tuple[Any, Any, tuple[Any, ...]]]]:
    """Triton compiles for one; all launches so far."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    before = driver._active
    Launcher.launches.clear()
    driver.set_active(
        SimpleNamespace(
            launcher_cls=Launcher,
            utils=SimpleNamespace(
                get_device_properties=lambda _: {"max_shared_mem": 232448},
                load_binary=lambda *_: (1, 2, 64, 0, 1024),
            ),
            get_current_target=lambda: GPUTarget("cuda", 90, 32),
            get_current_device=lambda: 0,
            get_current_stream=lambda _: 77,
        )
    )
    try:
        yield Launcher.launches
    finally:
        driver._active = before


def peers_of(rank: int = 0, world: int = 2) -> Any:
    """A group's kernels over memory that no kernel touches."""
    from commplan.runtime.kernels.peer_kernels import PeerKernels
    from commplan.runtime.kernels.symmetric import Workspace
    from commplan.runtime.ranks.groups import Group

    spaces = [Workspace(1 << 27, torch.zeros(world, dtype=torch.int64), None) for _ in range(2)]
    state, error = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int32)
    return PeerKernels(Group("tp", None, world, rank), *spaces, state, error)
