"""Kernels of the backends stand for the norms that they compute, and for no others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from commplan.planner.strategy.file import Op, Parallelism
from commplan.runtime.backends.base import plain_norm
from commplan.runtime.backends.hccl import HcclBackend
from commplan.runtime.backends.nccl import NcclBackend
from commplan.runtime.kernels.peer_impls import CAN
from commplan.runtime.transformers.norms import mark_norms

from .tiny_models import _COMMON, FAMILIES

transformers = pytest.importorskip("transformers")


class KernelLaunchedError(Exception):
    """A backend launched a kernel of its own."""


class Kernels:
    def __getattr__(self, name: str) -> Any:
        raise KernelLaunchedError(name)


def marked(model_type: str) -> torch.nn.Module:
    """A norm of a tiny model of that type, whose weight is not trivial."""
    config = transformers.AutoConfig.for_model(
        model_type, hidden_size=16, num_hidden_layers=1, vocab_size=8, intermediate_size=8, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, pad_token_id=0,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config)
    norm = model.model.layers[0].input_layernorm
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
    mark(model)
    return norm


def mark(model: Any) -> None:
    """As the runtime does, which wraps the last norm."""
    base = SimpleNamespace(layers=model.model.layers, norm=SimpleNamespace(norm=model.model.norm))
    mark_norms(SimpleNamespace(model=base), torch.float32)


def backends() -> list[Any]:
    nccl, hccl = NcclBackend.__new__(NcclBackend), HcclBackend.__new__(HcclBackend)
    nccl._kernels = hccl._npu = Kernels()
    return [nccl, hccl]


@pytest.mark.parametrize("backend", backends(), ids=["nccl", "hccl"])
def test_a_norm_that_adds_one_to_its_weight_is_computed_by_its_module(backend: Any) -> None:
    norm, x, residual = marked("qwen3_5_text"), torch.randn(3, 16), torch.randn(3, 16)
    assert torch.equal(backend.rms_norm(x, norm), norm(x))
    assert torch.equal(backend.add_rms_norm(x, residual, norm)[0], norm(x + residual))


@pytest.mark.parametrize("backend", backends(), ids=["nccl", "hccl"])
def test_a_plain_norm_is_computed_by_the_kernel(backend: Any) -> None:
    norm, x = marked("qwen3"), torch.randn(3, 16)
    with pytest.raises(KernelLaunchedError):
        backend.rms_norm(x, norm)
    with pytest.raises(KernelLaunchedError):
        backend.add_rms_norm(x, x, norm)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_executor_offers_norms_inside_sums_to_the_models_whose_norm_they_compute(name: str) -> None:
    about = FAMILIES[name]
    made = getattr(transformers, about.model_class)
    model = made(made.config_class(**{**_COMMON, **about.fields}))
    mark(model)
    for norm in (model.model.norm, *(layer.post_attention_layernorm for layer in model.model.layers)):
        for impl in ("commplan_triton_norm", "composed_norm"):
            op = Op("int8_all_reduce", "gather", impl=impl)
            refused = CAN.refusal("attn_out", op, "prefill", "dense", Parallelism(2), architecture=about.model_class)
            assert plain_norm(norm) == (refused is None), refused
