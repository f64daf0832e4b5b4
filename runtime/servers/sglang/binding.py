"""A plan's ops, bound to SGLang's groups by the binding that commplan's own runtime has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from commplan.planner.strategy.file import Parallelism, StrategyFile

from ...backends import Backend, load_backend
from ...bound.bound_ops import BoundOut
from ...bound.counts import Counters
from ...bound.peer_pool import PeerPool
from ...bound.program import LayerProgram, Program, build_programs
from ...bound.sizes import Sizes
from ...errors import BoundaryError, RefusedError
from ...kernels.peer_impls import check_peer_limits
from ...ranks.groups import Group, Groups
from .words import ONE_SHOT

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Binding:
    """The groups of a server, and the collectives of our own over them: made once, before the KV cache takes memory.

    `tp_group`, `attn_tp_group`: SGLang's GroupCoordinators of the tp ranks and of the ranks of a DP group. Every rank
    makes one, for the same plan.
    """

    def __init__(self, file: StrategyFile, tp_group: Any, attn_tp_group: Any, device: torch.device) -> None:
        self._file, self._tp_group = file, tp_group
        self._groups = groups_of(file, tp_group, attn_tp_group)
        self._backend = _backend(file)
        self.peers = PeerPool(self._groups, self._backend)
        check_peer_limits(file, self._backend.name, self._backend.peer_limits)
        self.peers.make(device, TORCH_DTYPES[file.deployment.activations], file)

    def programs(self, counters: Counters) -> dict[str, tuple[Program, ...]]:
        """Programs by mode, in the order of their ranges."""
        width = TORCH_DTYPES[self._file.deployment.activations].itemsize
        programs = build_programs(self._file, self._groups, self._backend, counters, width, self.peers)
        return {
            mode: tuple(_with_custom_all_reduce(program, self._tp_group) for program in of_mode)
            for mode, of_mode in programs.items()
        }


def groups_of(file: StrategyFile, tp_group: Any, attn_tp_group: Any) -> Groups:
    """SGLang's groups in our words. It has none for the dp axis: with attention DP every rank must call this."""
    p = file.parallelism
    for field, planned, group in (("tp", p.tp, tp_group), ("attn_dp", p.attn_tp, attn_tp_group)):
        if group.world_size != planned:
            raise RefusedError(
                f"the plan is for groups of {planned} ranks", field=f"parallelism.{field}", value=group.world_size
            )
    tp = Group("tp", tp_group.device_group, tp_group.world_size, tp_group.rank_in_group)
    control = Group("control", tp_group.cpu_group, tp_group.world_size, tp_group.rank_in_group)
    if p.attn_dp == 1:
        return Groups(p, tp, tp, Group("attn_dp", None, 1, 0), control)
    rank, size = attn_tp_group.rank_in_group, attn_tp_group.world_size
    attn_tp = Group("attn_tp", attn_tp_group.device_group, size, rank)
    if tp.rank % size != rank:
        raise RefusedError("numbers its ranks in another way than the plan", field="attn_tp_group", value=rank)
    return Groups(p, tp, attn_tp, _dp_axis(p, tp, tp_group.ranks), control)


def _dp_axis(p: Parallelism, tp: Group, ranks: Sequence[int]) -> Group:
    """The ranks that hold the same place in their DP groups. Every rank makes every group, and keeps its own."""
    if p.attn_tp == 1:
        return replace(tp, name="attn_dp")
    made = [
        dist.new_group(list(ranks[place :: p.attn_tp]), backend=dist.get_backend(tp.handle))
        for place in range(p.attn_tp)
    ]
    return Group("attn_dp", made[tp.rank % p.attn_tp], p.attn_dp, tp.rank // p.attn_tp)


def _backend(file: StrategyFile) -> Backend:
    return load_backend(file.hardware.backend)


# ---- SGLang's one-shot kernel ----------------------------------------------------------------------------------------


def check_custom_all_reduce(tp_group: Any) -> None:
    """Raises RefusedError unless SGLang has set up its one-shot all-reduce kernel."""
    kernel = getattr(tp_group, "ca_comm", None)
    if kernel is None or kernel.disabled:
        raise RefusedError(
            "the plan has all_reduce by custom_one_shot, which SGLang has not set up here (GPUs without peer access?); "
            "plan again without it: --set hardware=... with the calibration of this machine",
            field="impl",
            value=ONE_SHOT,
        )


def _with_custom_all_reduce(program: Program, tp_group: Any) -> Program:
    def of(bound: BoundOut) -> BoundOut:
        if bound.place.op.impl != ONE_SHOT:
            return bound
        return replace(bound, sum=_one_shot(tp_group, str(bound.place)))

    layers = tuple(
        LayerProgram(layer.attn_in, of(layer.attn_out), layer.mlp_in, of(layer.mlp_out)) for layer in program.layers
    )
    return replace(program, embed_out=of(program.embed_out), layers=layers)


def _one_shot(tp_group: Any, where: str) -> Any:
    """All-reduce by SGLang's kernel, which GroupCoordinator prefers wherever it takes the message."""

    def run(x: Tensor, sizes: Sizes) -> Tensor:  # noqa: ARG001
        if not tp_group.ca_comm.should_custom_ar(x):
            raise BoundaryError(
                f"SGLang's one-shot kernel does not take {list(x.shape)} of {x.dtype}; its buffers are smaller than "
                "the plan assumes: plan again with --set limits or another impl",
                where=where,
            )
        out: Tensor = tp_group.all_reduce(x)
        return out

    return run
