"""Measuring all-reduce kernels of other libraries, which servers sum with: what our own and a plan are held against.

kind        torch_one_shot | torch_two_shot | flashinfer | flashinfer_fused (with residual add and RMSNorm)
name        all_reduce
rows, width of the message

They are taken where their libraries are installed, and left out with the reason elsewhere. FlashInfer is asked for its
backend without multicast and chooses its algorithm by itself, with dependent launch, as servers run it. Torch's sum a
buffer of symmetric memory.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor

from ..backends import Backend
from ..ranks.agreement import Exchange, first_line
from ..ranks.groups import Group
from .point_calls import DTYPES, PlainNorm, Point, random_rows

Key = tuple[str, int, int, str]  # whose, group size, width, dtype
_FUSED = "flashinfer_fused"
_OWNER = {"torch_one_shot": "torch", "torch_two_shot": "torch", "flashinfer": "flashinfer", _FUSED: "flashinfer"}
RIVALS = tuple(_OWNER)
BARE_RIVALS = tuple(name for name in RIVALS if name != _FUSED)
"""Those that are nothing but a collective."""


def is_rival(point: Point) -> bool:
    """Is this a point of another library's kernel?"""
    return point.kind in _OWNER


class _Kernels(Protocol):
    def call_of(self, point: Point, x: Tensor) -> Callable[[], Any]: ...


class RivalKernels:
    """What has been made of other libraries for all points of theirs: once for each group size, width and dtype."""

    def __init__(
        self,
        points: list[Point],
        backend: Backend,
        groups: dict[int, Group],
        device: torch.device,
        exchange: Exchange,
    ) -> None:
        self._device = device
        self._made: dict[Key, _Kernels] = {}
        self.left_out: dict[str, int] = {}
        """Points that cannot be measured here, by reason."""
        theirs = [point for point in points if is_rival(point)]
        for key in sorted({_key(point) for point in theirs}):
            mine = [point for point in theirs if _key(point) == key]
            made, reason = _try(mine, backend, groups.get(key[1]), device)
            if reasons := list(filter(None, exchange(reason))):  # on any rank: then none has them
                self.left_out[reasons[0]] = self.left_out.get(reasons[0], 0) + len(mine)
            elif made is not None:
                self._made[key] = made

    def has(self, point: Point) -> bool:
        """Can this point be measured here?"""
        return _key(point) in self._made

    def call_of(self, point: Point) -> Callable[[], Any]:
        """The call that a point stands for, with its inputs made."""
        return self._made[_key(point)].call_of(point, random_rows(point.rows, point, self._device))


def _key(point: Point) -> Key:
    return _OWNER[point.kind], point.group_size, point.width, point.dtype


def _try(
    points: list[Point], backend: Backend, group: Group | None, device: torch.device
) -> tuple[_Kernels | None, str]:
    """(kernels that have summed ones here, ""), or (None, why not)."""
    first = points[0]
    if backend.name != "nccl" or group is None:
        return None, f"{_OWNER[first.kind]}'s kernels run on NVIDIA GPUs alone"
    most = max(point.rows for point in points)
    try:
        make: Any = _Torch if _OWNER[first.kind] == "torch" else _FlashInfer
        made: _Kernels = make(group, device, DTYPES[first.dtype], first.width, most)
        made.call_of(first, torch.ones(first.rows, first.width, dtype=DTYPES[first.dtype], device=device))()
        torch.cuda.synchronize(device)
    except Exception as error:  # whatever an import, a driver, an allocator or a compiler says
        return None, f"{_OWNER[first.kind]}: {first_line(error)}"
    return made, ""


class _Torch:
    """Sums over one buffer of symmetric memory; multicast is not used."""

    def __init__(self, group: Group, device: torch.device, dtype: torch.dtype, width: int, most: int) -> None:
        import torch.distributed._symmetric_memory as symmetric_memory

        self._shared = symmetric_memory.empty(most, width, dtype=dtype, device=device)
        symmetric_memory.rendezvous(self._shared, group.handle)
        self._group = group.handle.group_name

    def call_of(self, point: Point, x: Tensor) -> Callable[[], Any]:
        """The two-shot overwrites its input: what it sums does not change its time."""
        shared, ops = self._shared[: len(x)], torch.ops.symm_mem
        shared.copy_(x)
        run: Any = ops.one_shot_all_reduce if point.kind == "torch_one_shot" else ops.two_shot_all_reduce_
        return lambda: run(shared, "sum", self._group)


class _FlashInfer:
    """One workspace of its `trtllm` backend, which needs no multicast."""

    def __init__(self, group: Group, device: torch.device, dtype: torch.dtype, width: int, most: int) -> None:
        del device
        self._module: Any = import_module("flashinfer.comm.allreduce")
        self._patterns: Any = import_module("flashinfer.comm.trtllm_ar").AllReduceFusionPattern
        self._space = self._module.create_allreduce_fusion_workspace(
            backend="trtllm",
            world_size=group.size,
            rank=group.rank,
            max_token_num=most,
            hidden_dim=width,
            dtype=dtype,
            group=group.handle,
        )

    def call_of(self, point: Point, x: Tensor) -> Callable[[], Any]:
        """With outputs made once, as a captured graph has them."""
        out, given = torch.empty_like(x), {"workspace": self._space, "input": x, "launch_with_pdl": True}
        if point.kind != _FUSED:
            given |= {"pattern": self._patterns.kAllReduce, "output": out}
        else:
            norm = PlainNorm(x.shape[1], x.dtype, x.device)
            given |= {
                "pattern": self._patterns.kARResidualRMSNorm,
                "output": torch.empty_like(x),
                "residual_in": torch.randn_like(x),
                "residual_out": torch.empty_like(x),
                "norm_out": out,
                "rms_gamma": norm.weight.detach(),
                "rms_eps": norm.variance_epsilon,
            }
        return lambda: self._module.allreduce_fusion(**given)
