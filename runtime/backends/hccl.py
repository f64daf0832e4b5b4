"""HCCL on Ascend NPUs through torch_npu. Schema and shape contract verified (tests/npu); NPU execution unverified.

torch_npu is imported here alone: where CANN is missing, its mere presence breaks `import torch`.

What the documentation of torch_npu, aclnn and HCCL demands and their Meta kernels let pass is checked here: a wrong
message is refused with a reason, instead of an error code from the device or a wrong result.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from commplan.planner.strategy.packages import install

from ..errors import RefusedError
from ..kernels.wire.layout import RowLayout
from ..kernels.wire.plain import WireRows
from ..ranks.groups import Group
from .base import Backend, Pending, plain_norm

_HALF = (torch.float16, torch.bfloat16)
_FLOATS = (*_HALF, torch.float32)
# HCCL lists int8 too, but a sum of raw INT8 values overflows: they travel by all_to_all or all_gather, and are summed
# in fp32.
_SUMMED = (torch.int16, torch.int32, torch.int64, *_FLOATS)
_MOVED = (torch.int8, torch.uint8, *_SUMMED, torch.float64)


class HcclBackend(Backend):
    """torch.distributed over HCCL, with the vendor's kernels for quantisation and norms."""

    name = "hccl"

    def __init__(self) -> None:
        self._npu = _import_torch_npu()

    def device_count(self) -> int:
        """NPUs that torch_npu sees."""
        count: int = self._npu.npu.device_count()
        return count

    def device(self, local_rank: int) -> torch.device:
        """NPU of the local rank, made current: HCCL and transformers both go by the current device."""
        visible = self.device_count()
        if local_rank >= visible:
            raise RefusedError(f"torch_npu sees {visible} NPUs on this host", field="LOCAL_RANK", value=local_rank)
        self._npu.npu.set_device(local_rank)
        return torch.device("npu", local_rank)

    # ---- collectives ------------------------------------------------------------------------------------------------

    def all_reduce(self, x: Tensor, group: Group) -> Tensor:
        """As the base."""
        _check_message("all_reduce", x, _SUMMED)
        return super().all_reduce(x, group)

    def reduce_scatter(self, x: Tensor, group: Group) -> Tensor:
        """As the base."""
        _check_message("reduce_scatter", x, _SUMMED)
        _check_rows("reduce_scatter", x, group)
        return super().reduce_scatter(x, group)

    def all_gather(self, x: Tensor, group: Group) -> Tensor:
        """As the base."""
        _check_message("all_gather", x, _MOVED)
        return super().all_gather(x, group)

    def all_to_all(self, x: Tensor, group: Group) -> Tensor:
        """As the base."""
        _check_message("all_to_all", x, _MOVED)
        _check_rows("all_to_all", x, group)
        return super().all_to_all(x, group)

    def all_to_all_uneven(self, x: Tensor, sent: list[int], received: list[int], group: Group) -> Tensor:
        """As the base."""
        _check_message("all_to_all_uneven", x, _MOVED)
        for name, splits in (("sent", sent), ("received", received)):
            if len(splits) != group.size:
                field = f"all_to_all_uneven.{name}"
                raise RefusedError(f"one count for each of {group.size} ranks is expected", field=field, value=splits)
        if sum(sent) != x.shape[0]:
            raise RefusedError(f"the message has {x.shape[0]} rows", field="all_to_all_uneven.sent", value=sent)
        return super().all_to_all_uneven(x, sent, received, group)

    def start_all_gather(self, out: Tensor, x: Tensor, group: Group) -> Pending:
        """As the base."""
        _check_message("all_gather", x, _MOVED)
        _check_message("all_gather", out, _MOVED)
        return super().start_all_gather(out, x, group)

    def start_all_to_all(self, out: Tensor, x: Tensor, group: Group) -> Pending:
        """As the base."""
        _check_message("all_to_all", x, _MOVED)
        _check_message("all_to_all", out, _MOVED)
        _check_rows("all_to_all", x, group)
        return super().start_all_to_all(out, x, group)

    # ---- kernels ----------------------------------------------------------------------------------------------------

    def wire_rows(self, layout: RowLayout) -> WireRows:
        """Plain torch, but for what torch_npu has kernels of."""
        return NpuWireRows(layout, self._npu)

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """npu_dynamic_quant: per-token symmetric INT8 in one kernel; non-contiguous input is fine.

        Documented as scale = rowmax|x| / 127, value = round(x / scale). A row of zeros stays zero: CANN's reference
        gives it either a scale or values of 0. Its reference also carries NaN and Inf into the scale; that the kernel
        does is unverified.
        """
        _check_matrix("npu_dynamic_quant", x, _HALF)
        if x.shape[0] == 0:  # empty input: supported since CANN 8.5 only
            return torch.empty_like(x, dtype=torch.int8), x.new_empty(0, 1, dtype=torch.float32)
        values, scales = self._npu.npu_dynamic_quant(x)
        return values, scales.unsqueeze(-1)

    def rms_norm(self, x: Tensor, norm: torch.nn.Module) -> Tensor:
        """npu_rms_norm with the module's weight and epsilon."""
        if not plain_norm(norm):
            return super().rms_norm(x, norm)
        _check_norm("npu_rms_norm", x, norm)
        if x.shape[0] == 0:
            return torch.empty_like(x)
        out: Tensor = self._npu.npu_rms_norm(x.contiguous(), norm.weight, norm.variance_epsilon)[0]
        return out

    def add_rms_norm(self, x: Tensor, residual: Tensor, norm: torch.nn.Module) -> tuple[Tensor, Tensor]:
        """npu_add_rms_norm: residual add and norm in one kernel, which takes neither empty nor strided input."""
        if not plain_norm(norm):
            return super().add_rms_norm(x, residual, norm)
        _check_norm("npu_add_rms_norm", x, norm)
        if (residual.shape, residual.dtype) != (x.shape, x.dtype):
            raise RefusedError(
                f"must be like x, {_kind(x)}; this kernel does not broadcast",
                field="npu_add_rms_norm.residual",
                value=_kind(residual),
            )
        if x.shape[0] == 0:
            return torch.empty_like(x), torch.empty_like(x)
        normed, _, total = self._npu.npu_add_rms_norm(
            x.contiguous(), residual.contiguous(), norm.weight, norm.variance_epsilon
        )
        return normed, total


class NpuWireRows(WireRows):
    """Records of rows: INT8 per token by npu_dynamic_quant, the add and the norm behind a sum by npu_add_rms_norm.

    Of what is not finite, and of a row of next to nothing, INT8 per token holds what npu_dynamic_quant makes of it.
    """

    def __init__(self, layout: RowLayout, npu: Any) -> None:
        super().__init__(layout)
        self._npu = npu

    def quantize(self, x_RH: Tensor, out_RB: Tensor) -> None:
        """As the base."""
        at, rows = self.layout, x_RH.shape[0]
        if (at.wire, at.group) != ("int8", "token") or x_RH.dtype not in _HALF or rows == 0:
            super().quantize(x_RH, out_RB)
            return
        values, scales = self._npu.npu_dynamic_quant(x_RH)
        out_RB[rows:] = 0
        out_RB[:rows, : at.width] = values
        out_RB[:rows, at.width : at.scales_at] = 0
        out_RB[:rows, at.scales_at : at.scales_at + 4] = scales.unsqueeze(-1).view(torch.int8)

    def sum_norm(
        self,
        got_NRB: Tensor,
        residual_RH: Tensor | None,
        weight_H: Tensor,
        eps: float,
        out_RH: Tensor,
        total_RH: Tensor,
    ) -> None:
        """As the base."""
        if weight_H.dtype != out_RH.dtype or out_RH.shape[0] == 0:
            super().sum_norm(got_NRB, residual_RH, weight_H, eps, out_RH, total_RH)
            return
        summed = torch.empty_like(out_RH)
        self.sum(got_NRB, summed)
        if residual_RH is None:
            total_RH.copy_(summed)
            out_RH.copy_(self._npu.npu_rms_norm(summed, weight_H, eps)[0])
            return
        normed, _, total = self._npu.npu_add_rms_norm(summed, residual_RH.contiguous(), weight_H, eps)
        out_RH.copy_(normed)
        total_RH.copy_(total)


def _import_torch_npu() -> Any:
    """torch_npu; raises ImportError with the way out."""
    try:
        import torch_npu
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torch_npu":
            raise ImportError(f"torch_npu is not installed: {install('npu')}") from None
        raise ImportError(f"{error}; is CANN installed, and its set_env.sh sourced?") from None
    except RuntimeError as error:  # beside another accelerator
        raise ImportError(str(error).splitlines()[0]) from None
    return torch_npu


# ---- preconditions ---------------------------------------------------------------------------------------------------


def _check_message(op: str, x: Tensor, accepted: tuple[torch.dtype, ...]) -> None:
    """HCCL takes dense, contiguous buffers of the types that it lists."""
    _check_dtype(op, x, accepted)
    if not x.is_contiguous():
        raise RefusedError("HCCL takes contiguous messages", field=f"{op}.stride", value=x.stride())


def _check_rows(op: str, x: Tensor, group: Group) -> None:
    """Blocks of equal size, one per rank."""
    if x.shape[0] % group.size:
        raise RefusedError(
            f"must divide by the {group.size} ranks of {group.name}", field=f"{op}.rows", value=x.shape[0]
        )


def _check_matrix(op: str, x: Tensor, accepted: tuple[torch.dtype, ...]) -> None:
    _check_dtype(op, x, accepted)
    if x.dim() != 2:
        raise RefusedError("rows of a hidden state, [rows, width], are expected", field=f"{op}.shape", value=_shape(x))


def _check_norm(op: str, x: Tensor, norm: torch.nn.Module) -> None:
    weight: Tensor = norm.weight  # type: ignore[assignment]
    _check_matrix(op, x, _FLOATS)
    if weight.dtype != x.dtype or weight.shape != x.shape[1:]:
        raise RefusedError(f"must fit rows of {_kind(x)}", field=f"{op}.gamma", value=_kind(weight))


def _check_dtype(op: str, x: Tensor, accepted: tuple[torch.dtype, ...]) -> None:
    if x.dtype not in accepted:
        names = ", ".join(_name(dtype) for dtype in accepted)
        raise RefusedError(f"accepted on NPUs: {names}", field=f"{op}.dtype", value=_name(x.dtype))


def _kind(x: Tensor) -> str:
    return f"{_name(x.dtype)} {_shape(x)}"


def _shape(x: Tensor) -> str:
    return f"[{', '.join(str(int(n)) for n in x.shape)}]"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


BACKEND = HcclBackend
