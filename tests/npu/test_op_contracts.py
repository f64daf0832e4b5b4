"""Every op of torch_npu that the backend calls: its registered schema, and what its Meta kernel answers."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch_npu

from commplan.runtime.backends import hccl
from commplan.runtime.backends.hccl import HcclBackend

from .fake_npu import KERNELS, Call, fake_npu, traffic

ROWS = (1, 2, 7, 129)
WIDTHS = (1, 7, 130, 7168)
HALF = (torch.float16, torch.bfloat16)
FLOATS = (*HALF, torch.float32)


@dataclass(frozen=True)
class Schema:
    """What the backend relies on: the arguments that it passes, in order; defaults of others; the results."""

    passed: tuple[tuple[str, str], ...]
    relied_on: dict[str, object]
    num_results: int


SCHEMAS = {
    "npu_dynamic_quant": Schema(
        (("input", "Tensor"),), {"smooth_scales": None, "dst_type": None, "quant_mode": "pertoken"}, 2
    ),
    "npu_rms_norm": Schema((("input", "Tensor"), ("gamma", "Tensor"), ("epsilon", "float")), {}, 2),
    "npu_add_rms_norm": Schema((("x1", "Tensor"), ("x2", "Tensor"), ("gamma", "Tensor"), ("epsilon", "float")), {}, 3),
}


def test_every_op_that_the_backend_calls_has_its_contract_here() -> None:
    tree = ast.parse(inspect.getsource(hccl))
    called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("npu_")}
    assert called == set(SCHEMAS) == set(KERNELS)


@pytest.mark.parametrize("name", SCHEMAS)
def test_registered_schema_takes_what_the_backend_passes(name: str) -> None:
    wanted = SCHEMAS[name]
    (overload,) = getattr(torch.ops.npu, name).overloads()
    schema = getattr(getattr(torch.ops.npu, name), overload)._schema
    assert tuple((a.name, str(a.type)) for a in schema.arguments[: len(wanted.passed)]) == wanted.passed
    assert not any(a.kwarg_only for a in schema.arguments[: len(wanted.passed)])
    others = {a.name: a for a in schema.arguments[len(wanted.passed) :]}
    assert all(a.has_default_value() for a in others.values())
    assert {name: others[name].default_value for name in wanted.relied_on} == wanted.relied_on
    assert [str(result.type) for result in schema.returns] == ["Tensor"] * wanted.num_results
    assert not schema.is_mutable


@pytest.mark.parametrize("name", SCHEMAS)
def test_op_is_public_and_has_a_kernel_for_npus_and_a_meta_kernel(name: str) -> None:
    assert callable(getattr(torch_npu, name))
    for key in ("PrivateUse1", "Meta"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"npu::{name}", key)


# ---- Meta kernels, reached through the backend ----------------------------------------------------------------------


def npu(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(*shape, dtype=dtype, device="npu")


def norm(width: int, dtype: torch.dtype = torch.bfloat16) -> Any:
    """What the backend reads of a transformers RMSNorm."""
    module: Any = torch.nn.Module()
    module.weight, module.variance_epsilon = torch.nn.Parameter(npu(width, dtype=dtype)), 1e-6
    return module


def kind(x: torch.Tensor) -> tuple[str, tuple[int, ...], torch.dtype]:
    return x.device.type, tuple(x.shape), x.dtype


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", ROWS)
def test_quantize_gives_int8_rows_and_one_fp32_scale_each(rows: int, width: int, dtype: torch.dtype) -> None:
    with fake_npu(), traffic() as calls:
        values, scales = HcclBackend().quantize(npu(rows, width, dtype=dtype))
        assert kind(values) == ("npu", (rows, width), torch.int8)
        assert kind(scales) == ("npu", (rows, 1), torch.float32)
        assert values.is_contiguous() and scales.is_contiguous()
    assert calls == [Call("npu_dynamic_quant", (rows, width), (rows, width), torch.int8)]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", ROWS)
def test_norms_give_rows_like_those_they_take(rows: int, width: int, dtype: torch.dtype) -> None:
    with fake_npu(), traffic() as calls:
        x, residual = npu(rows, width, dtype=dtype), npu(rows, width, dtype=dtype)
        normed = HcclBackend().rms_norm(x, norm(width, dtype))
        added, total = HcclBackend().add_rms_norm(x, residual, norm(width, dtype))
        assert kind(normed) == kind(added) == kind(total) == ("npu", (rows, width), dtype)
    assert [call.name for call in calls] == ["npu_rms_norm", "npu_add_rms_norm"]


def test_add_rms_norm_returns_one_number_per_row_between_two_results_like_its_rows() -> None:
    """aclnnAddRmsNorm documents (y, rstd, x), x the sum. That y and x are not the other way round no shape can tell."""
    with fake_npu():
        y, rstd, x = torch_npu.npu_add_rms_norm(npu(7, 130), npu(7, 130), npu(130), 1e-6)
        assert kind(y) == kind(x) == ("npu", (7, 130), torch.bfloat16)
        assert kind(rstd) == ("npu", (7, 1), torch.float32)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize(("copies", "rows", "width"), [(1, 1, 1), (2, 7, 130), (4, 3, 7168), (8, 1, 7)])
def test_dequantized_sums_are_rows_of_the_wanted_type(copies: int, rows: int, width: int, dtype: torch.dtype) -> None:
    with fake_npu():
        values, scales = npu(copies * rows, width, dtype=torch.int8), npu(copies * rows, 1, dtype=torch.float32)
        backend = HcclBackend()
        assert kind(backend.dequantize_sum(values, scales, copies, dtype)) == ("npu", (rows, width), dtype)
        assert kind(backend.dequantize(values, scales, dtype)) == ("npu", (copies * rows, width), dtype)


def test_strided_rows_reach_the_norm_kernels_contiguous(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    backend = HcclBackend()
    for name in ("npu_rms_norm", "npu_add_rms_norm"):
        op = getattr(torch_npu, name)

        def spied(*args: Any, op: Any = op) -> Any:
            seen.extend(a.is_contiguous() for a in args if isinstance(a, torch.Tensor))
            return op(*args)

        monkeypatch.setattr(torch_npu, name, spied)
    with fake_npu():
        strided = npu(7, 260)[:, ::2]
        assert not strided.is_contiguous()
        backend.rms_norm(strided, norm(130))
        backend.add_rms_norm(strided, strided, norm(130))
    assert seen == [True] * 5
