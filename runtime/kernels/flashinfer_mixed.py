"""The MixedComm pairs by FlashInfer's `run_mixed_comm` (0.7): UNVERIFIED, written against its signature and never run.

Its handler makes a multicast object when it is constructed, whatever mode runs later, so it is refused where multicast
has been switched off (NCCL_NVLS_ENABLE=0 or TORCH_SYMM_MEM_DISABLE_MULTICAST=1). Our own pairs (mixed_comm.py) need
none. No executor offers this yet: `flashinfer_mixed` is planned and reported by `plan_only`, and a plan that a runtime
loads must be one that somebody has run.

Ranks are numbered alike on both sides: rank = DP group * attn_tp + rank in it.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from ..errors import RefusedError
from ..ranks.groups import Group

_SWITCHES = (("NCCL_NVLS_ENABLE", "0"), ("TORCH_SYMM_MEM_DISABLE_MULTICAST", "1"))


class FlashInferMixed:
    """One handler of FlashInfer over the tp group of a node; every rank of the group makes it."""

    def __init__(self, group: Group, attn_tp: int, device: torch.device, dtype: torch.dtype) -> None:
        for name, off in _SWITCHES:
            if os.environ.get(name) == off:
                raise RefusedError(
                    "FlashInfer's handler makes a multicast object, which this variable forbids; use commplan_triton",
                    field=name,
                    value=off,
                )
        try:
            self._module = import_module("flashinfer.comm.mixed_comm")
        except ImportError as error:
            raise RefusedError(
                f"needs flashinfer-python 0.7: {error}", field="impl", value="flashinfer_mixed"
            ) from None
        self._handler = self._module.MixedCommHandler(
            world_rank=group.rank,
            world_size=group.size,
            local_rank=group.rank,
            local_size=group.size,
            inter_rank=0,
            inter_size=1,
            local_tp_size=attn_tp,
            local_dp_size=group.size // attn_tp,
            inter_tp_size=1,
            inter_dp_size=1,
            dtype=dtype,
            device=device,
            should_init_nvshmem=False,
            use_autotune=False,
        )

    def gather_sum(self, x_GH: Tensor) -> Tensor:
        """A DP group's partial rows [G, H] to the summed rows of all groups [N / attn_tp * G, H]."""
        return self._run("ALLREDUCE_ALLGATHER", x_GH)

    def scatter_sum(self, x_TH: Tensor) -> Tensor:
        """Partial rows of all groups [N / attn_tp * G, H] to the summed rows of this DP group [G, H]."""
        return self._run("REDUCESCATTER_ALLREDUCE", x_TH)

    def all_gather(self, x_SH: Tensor) -> Tensor:
        """[S, H] of each rank to [N * S, H], where a DP group is one rank."""
        return self._run("ALLGATHER", x_SH)

    def reduce_scatter(self, x_TH: Tensor) -> Tensor:
        """[N * S, H] to this rank's [S, H] of the sum, where a DP group is one rank."""
        return self._run("REDUCESCATTER", x_TH)

    def close(self) -> None:
        """Give the memory back."""
        self._handler.shutdown()

    def _run(self, op: str, x: Tensor) -> Tensor:
        # The unicast kernel for little data. Without a mode, and without autotuning, FlashInfer would call NCCL.
        module: Any = self._module
        mode = module.MixedCommMode.FUSED_OPT_WAITS_UC
        out: Tensor = module.run_mixed_comm(op=module.MixedCommOp[op], handler=self._handler, x_in=x, mode=mode)
        return out


__all__ = ["FlashInferMixed"]
