"""Kernels compiled for a Hopper GPU that is not there: what would be launched is noted instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from triton.backends.nvidia.driver import CudaLauncher


class Launcher(CudaLauncher):  # type: ignore[misc]
    """Triton's own, whose launcher in C is one that notes (compiled source, metadata, what it is called with)."""

    launches: ClassVar[list[tuple[Any, Any, tuple[Any, ...]]]] = []

    def __init__(self, source: Any, metadata: Any) -> None:
        self.num_ctas = 1
        self.global_scratch_size = self.profile_scratch_size = 0
        self.global_scratch_align = self.profile_scratch_align = 1
        self.launch_cooperative_grid, self.launch_pdl = metadata.launch_cooperative_grid, metadata.launch_pdl
        self.launch = lambda *given: self.launches.append((source, metadata, given))


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


def compiled_code(source: Any) -> str:
    """PTX of what was launched."""
    (kernel,) = {
        k for cache in source.fn.device_caches.values() for k in cache[0].values() if k.src.hash() == source.hash()
    }
    text: str = kernel.asm["ptx"]
    return text
