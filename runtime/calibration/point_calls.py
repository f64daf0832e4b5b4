"""One thing to measure, and the call that does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from commplan.planner.strategy.file import COLLECTIVES

from ..backends import Backend
from ..collectives.formats import Format
from ..collectives.row_moves import pad_rows
from ..collectives.steps import format_of
from ..kernels.rms_norm import rms_norm
from ..ranks.groups import Group

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class Point(NamedTuple):
    """What to measure.

    kind        collective | kernel | gemm, or an impl of our own (see own.py)
    name        op of a collective, step of a kernel (as in the executors' kernel tables; `quantize.int8`), `linear`
    group_size  ranks of a collective; copies that a dequantising step takes
    dtype       of the activations: bf16 | fp16 | fp32
    rows        of the whole buffer of a collective; of the message of a kernel; of the input of a GEMM
    width       elements per row; the inner dimension of a GEMM
    columns     of a GEMM
    """

    kind: str
    name: str
    group_size: int
    dtype: str
    rows: int
    width: int
    columns: int = 0


class PlainNorm(nn.Module):
    """RMSNorm with the attributes that transformers' modules have."""

    def __init__(self, width: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, dtype=dtype, device=device))
        self.variance_epsilon = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        """[R, H] to [R, H]."""
        return rms_norm(x, self.weight, self.variance_epsilon)


def call_of(point: Point, backend: Backend, groups: dict[int, Group], device: torch.device) -> Callable[[], Any]:
    """The call that a point stands for, with its inputs made."""
    make = {"collective": _collective, "kernel": _kernel, "gemm": _gemm}[point.kind]
    return make(point, backend, groups, device)


def random_rows(rows: int, point: Point, device: torch.device) -> Tensor:
    """[rows, width] of a point's type."""
    return torch.randn(rows, point.width, dtype=DTYPES[point.dtype], device=device)


def _collective(point: Point, backend: Backend, groups: dict[int, Group], device: torch.device) -> Callable[[], Any]:
    group = groups[point.group_size]
    shares = group.size if COLLECTIVES[point.name].takes_shards else 1
    x = random_rows(point.rows // shares, point, device)
    run = getattr(backend, point.name)
    return lambda: run(x, group)


def _gemm(point: Point, backend: Backend, groups: dict[int, Group], device: torch.device) -> Callable[[], Any]:
    del backend, groups
    x = random_rows(point.rows, point, device)
    weight = torch.randn(point.columns, point.width, dtype=x.dtype, device=device) / point.width**0.5
    return lambda: F.linear(x, weight)


def _kernel(point: Point, backend: Backend, groups: dict[int, Group], device: torch.device) -> Callable[[], Any]:
    del groups
    x, copies = random_rows(point.rows, point, device), point.group_size
    dtype = x.dtype
    if point.name in ("norm", "add_norm"):
        norm, residual = PlainNorm(point.width, dtype, device), torch.randn_like(x)
        if point.name == "norm":
            return lambda: backend.rms_norm(x, norm)
        return lambda: backend.add_rms_norm(x, residual, norm)
    step, _, wire = point.name.partition(".")
    if wire:
        return _of_wire(step, format_of(wire, backend), x, copies)
    other, short = torch.randn_like(x) * 1e-6, x[: max(1, point.rows - 1)]
    if point.name == "copy" and point.rows == 1:
        return x.clone
    steps: dict[str, Callable[[], Any]] = {
        "fold_residual": lambda: x.add_(other),
        "copy": lambda: pad_rows(short, point.rows),
        "zero_fill": lambda: torch.zeros_like(x),
    }
    return steps[point.name]


def _of_wire(step: str, wire: Format, x: Tensor, copies: int) -> Callable[[], Any]:
    """A step of a wire format on the rows of a message."""
    dtype, (values, scales) = x.dtype, wire.quantize(x)
    if step == "dequantize_sum":
        all_values, all_scales = values.repeat(copies, 1), scales.repeat(copies, 1)
        return lambda: wire.dequantize_sum(all_values, all_scales, copies, dtype)
    steps: dict[str, Callable[[], Any]] = {
        "quantize": lambda: wire.quantize(x),
        "reduce_shard": lambda: wire.quantize(wire.dequantize_sum(values, scales, copies, dtype)),
        "dequantize": lambda: wire.dequantize(values, scales, dtype),
    }
    return steps[step]
