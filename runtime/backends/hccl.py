"""HCCL on Ascend NPUs through torch_npu. Schema and shape contract verified; NPU execution unverified.

torch_npu is imported here alone: where CANN is missing, its mere presence breaks `import torch`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import RefusedError
from ..groups import Group
from .base import Backend

_QUANT_DTYPES = (torch.float16, torch.bfloat16)


class HcclBackend(Backend):
    """torch.distributed over HCCL, with the vendor's kernels for quantisation and norms.

    The Meta kernels of torch_npu let some shapes pass that the documentation forbids, so those are checked here.
    """

    name = "hccl"
    device_type = "npu"

    def __init__(self) -> None:
        import torch_npu

        self._npu = torch_npu

    def reduce_scatter(self, x: Tensor, group: Group) -> Tensor:
        """As the base, with the documented precondition that the rows divide by the group."""
        if x.shape[0] % group.size:
            raise RefusedError(f"HCCL reduce_scatter needs rows divisible by {group.size}", value=x.shape[0])
        return super().reduce_scatter(x, group)

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """npu_dynamic_quant: per-token symmetric INT8, one kernel."""
        if x.dtype not in _QUANT_DTYPES:
            raise RefusedError("npu_dynamic_quant takes float16 or bfloat16", value=str(x.dtype))
        values, scales = self._npu.npu_dynamic_quant(x)
        return values, scales.view(-1, 1)

    def rms_norm(self, x: Tensor, norm: torch.nn.Module) -> Tensor:
        """npu_rms_norm with the module's weight and epsilon."""
        out: Tensor = self._npu.npu_rms_norm(x, norm.weight, norm.variance_epsilon)[0]
        return out

    def add_rms_norm(self, x: Tensor, residual: Tensor, norm: torch.nn.Module) -> tuple[Tensor, Tensor]:
        """npu_add_rms_norm: residual add and norm in one kernel."""
        normed, _, total = self._npu.npu_add_rms_norm(x, residual, norm.weight, norm.variance_epsilon)
        return normed, total


BACKEND = HcclBackend
