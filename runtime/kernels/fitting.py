"""Do arrays fit a kernel? Looked at when shapes are new, and at the device and the order of memory in every call."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from ..errors import RefusedError
from .peer_impls import KERNEL_LIMITS

_TYPES = {torch.bfloat16: "bf16", torch.float16: "fp16"}


def spelled(dtype: torch.dtype) -> str:
    """A type as files spell it."""
    return _TYPES.get(dtype, str(dtype))


def check_rows(x: Tensor) -> None:
    """Raises RefusedError where an op takes no such rows."""
    if x.dim() != 2:
        _refuse("is rows of one width, [rows, width]", "x.shape", tuple(x.shape))
    if x.dtype not in _TYPES:
        _refuse("the kernels compute in bf16 and fp16", "x.dtype", x.dtype)
    if x.shape[1] == 0 or x.shape[1] % KERNEL_LIMITS.row_multiple:
        _refuse(f"rows are of a multiple of {KERNEL_LIMITS.row_multiple} elements", "x.shape", tuple(x.shape))


def check_normed(x: Tensor, rows_out: int, residual: Tensor | None, weight: Tensor) -> None:
    """Raises RefusedError where a residual or a norm's weight does not fit the rows that come out."""
    width = x.shape[1]
    if residual is not None and residual.shape != (rows_out, width):
        _refuse(f"the rows that it is added to are {[rows_out, width]}", "residual.shape", tuple(residual.shape))
    if weight.shape != (width,):
        _refuse(f"a norm of these rows has {[width]}", "weight.shape", tuple(weight.shape))
    if weight.dtype not in (x.dtype, torch.float32):
        _refuse(f"is of the rows' type, {x.dtype}, or torch.float32", "weight.dtype", weight.dtype)


def check_where(device: torch.device, x: Tensor, **others: Tensor) -> None:
    """Raises RefusedError for an array that is elsewhere, of another type than `x`, or not contiguous."""
    for name, array in {"x": x, **others}.items():
        if array.device != device:
            _refuse(f"this group's kernels run on {device}", f"{name}.device", array.device)
        if name == "residual" and array.dtype != x.dtype:
            _refuse(f"is of the rows' type, {x.dtype}", "residual.dtype", array.dtype)
        if not array.is_contiguous():
            _refuse("is contiguous: call .contiguous()", f"{name}.stride", array.stride())


def _refuse(reason: str, field: str, value: object) -> NoReturn:
    raise RefusedError(reason, field=field, value=value)
