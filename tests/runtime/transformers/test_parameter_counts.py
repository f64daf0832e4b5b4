"""The planner's count of weights is that of the real modules, matrix by matrix."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
import transformers

from commplan.planner.descriptions.loader import load_model
from commplan.planner.descriptions.weights import matrices
from commplan.planner.strategy.layout import Parallelism

from .tiny_models import _COMMON, FAMILIES

HYBRID = {
    "vocab_size": 131, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
    "linear_value_head_dim": 16, "linear_conv_kernel_dim": 4, "num_experts": 8, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "tie_word_embeddings": False,
}  # fmt: skip


def built(model_class: Any, config: Any) -> torch.nn.Module:
    with torch.device("meta"):
        return model_class(config)


def weights(module: torch.nn.Module) -> int:
    """Elements of all matrices, tied ones once; not of norms, biases and other vectors."""
    return sum(p.numel() for p in module.parameters() if p.ndim > 1)


def counted(path: Any) -> int:
    return sum(m.parameters for m in matrices(load_model(str(path)), Parallelism(1)) if m.rows > 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_those_of_the_modules(family, tmp_path):
    about = FAMILIES[family]
    model_class = getattr(transformers, about.model_class)
    config = model_class.config_class(**{**_COMMON, **about.fields}, architectures=[about.model_class])
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert counted(tmp_path / "config.json") == weights(built(model_class, config))


def test_a_layer_of_linear_attention_has_the_weights_of_the_module(tmp_path):
    text = pytest.importorskip("transformers.models.qwen3_5_moe.configuration_qwen3_5_moe").Qwen3_5MoeTextConfig(
        **HYBRID
    )
    model = built(transformers.Qwen3_5MoeForCausalLM, text)
    config = {"architectures": ["Qwen3_5MoeForConditionalGeneration"], "text_config": text.to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    # Apart from what is left out: the gate of full attention's output, and the one number that gates the shared expert.
    gates = 1 * 4 * 16 * 64 + 4 * 64
    assert counted(tmp_path / "config.json") == weights(model) - gates
