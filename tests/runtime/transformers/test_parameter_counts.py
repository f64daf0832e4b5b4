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


# What gates a shared expert, a number for each layer and column; the biases of experts (gpt-oss) and of positions
# (DeepSeek-V4), which are matrices.
LEFT_OUT = {
    "qwen3_5_moe": 2 * 64,
    "qwen3_next": 2 * 64,
    "gpt_oss": 2 * 8 * (2 * 96 + 64),
    "deepseek_v4": (8 + 2 * 4 + 2 * 4) * 16,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_those_of_the_modules(family, tmp_path):
    about = FAMILIES[family]
    model_class = getattr(transformers, about.model_class)
    config = model_class.config_class(**{**_COMMON, **about.fields}, architectures=[about.model_class])
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    left_out = LEFT_OUT.get(family, 0)
    assert counted(tmp_path / "config.json") == weights(built(model_class, config)) - left_out


def test_a_layer_of_linear_attention_has_the_weights_of_the_module(tmp_path):
    text = pytest.importorskip("transformers.models.qwen3_5_moe.configuration_qwen3_5_moe").Qwen3_5MoeTextConfig(
        **HYBRID
    )
    model = built(transformers.Qwen3_5MoeForCausalLM, text)
    config = {"architectures": ["Qwen3_5MoeForConditionalGeneration"], "text_config": text.to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    gates = 4 * 64  # left out: the one number by layer that gates the shared expert
    assert counted(tmp_path / "config.json") == weights(model) - gates


_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_shared_experts": 1, "n_routed_experts": 8}
_LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 32, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
    "v_head_dim": 16, "first_k_dense_replace": 1,
}  # fmt: skip
_LINEAR = {key: value for key, value in HYBRID.items() if key.startswith("linear_")}

# Architecture, class of the modules, fields, and the weights that are left out, by layer: what gates a shared expert,
# the biases that lie in matrices of their own (gpt-oss), the position biases and the tables of hashes (DeepSeek-V4).
PLANNED = {
    "gpt_oss": ("GptOssForCausalLM", "GptOssForCausalLM", {"head_dim": 16, "num_local_experts": 8,
                "num_experts_per_tok": 2, "num_hidden_layers": 4}, 4 * 8 * (2 * 96 + 64)),
    "glm4_moe": ("Glm4MoeForCausalLM", "Glm4MoeForCausalLM", {"head_dim": 16, **_EXPERTS,
                 "first_k_dense_replace": 1}, 0),
    "glm_moe_dsa": ("GlmMoeDsaForCausalLM", "GlmMoeDsaForCausalLM", {**_EXPERTS, **_LATENT, "num_hidden_layers": 5,
                    "index_n_heads": 8, "index_head_dim": 16, "index_topk": 6, "index_topk_freq": 4}, 0),
    "qwen3_next": ("Qwen3NextForCausalLM", "Qwen3NextForCausalLM", HYBRID, 4 * 64),
    "qwen3_5": ("Qwen3_5ForConditionalGeneration", "Qwen3_5ForCausalLM",
                {"head_dim": 16, "num_hidden_layers": 4, **_LINEAR}, 0),
    "minimax_m2": ("MiniMaxM2ForCausalLM", "MiniMaxM2ForCausalLM", {"head_dim": 16, "num_local_experts": 8,
                   "num_experts_per_tok": 2}, 0),
    "kimi_linear": ("KimiLinearForCausalLM", "KimiLinearForCausalLM", {**_EXPERTS, **_LATENT, "num_local_experts": 8,
                    "linear_num_heads": 4, "linear_head_dim": 16, "n_routed_experts": None, "num_hidden_layers": 5},
                    4 * 4),  # a decay by head, which has four dims
    "glm4_moe_lite": ("Glm4MoeLiteForCausalLM", "Glm4MoeLiteForCausalLM", {**_EXPERTS, **_LATENT}, 0),
    "mimo_v2_flash": ("MiMoV2FlashForCausalLM", "MiMoV2FlashForCausalLM", {"head_dim": 24, "v_head_dim": 16,
                      "num_hidden_layers": 6, **_EXPERTS, "n_shared_experts": None}, 0),
    "minimax_m3": ("MiniMaxM3ForCausalLM", "MiniMaxM3VLForCausalLM", {"head_dim": 16, "num_local_experts": 8,
                   "num_experts_per_tok": 2, "dense_intermediate_size": 160, "shared_intermediate_size": 48,
                   "index_n_heads": 2, "index_head_dim": 8, "mlp_layer_types": ["dense", "sparse"],
                   "layer_types": ["full_attention", "minimax_m3_sparse"]}, 0),
    "llama4": ("Llama4ForConditionalGeneration", "Llama4ForCausalLM", {"head_dim": 16, "num_local_experts": 8,
               "num_experts_per_tok": 1, "interleave_moe_layer_step": 2, "intermediate_size_mlp": 160,
               "num_hidden_layers": 4}, 0),
    "deepseek_v4": ("DeepseekV4ForCausalLM", "DeepseekV4ForCausalLM", {"head_dim": 16, "num_key_value_heads": 1,
                    "q_lora_rank": 32, "o_groups": 2, "o_lora_rank": 8, "index_n_heads": 4, "index_head_dim": 8,
                    "index_topk": 4, "num_hidden_layers": 5, **_EXPERTS,
                    "layer_types": ["sliding_attention", *["heavily_compressed_attention"] * 2,
                                    *["compressed_sparse_attention"] * 2]}, None),
}  # fmt: skip


@pytest.mark.parametrize("family", PLANNED)
def test_weights_of_more_layers_and_of_what_is_only_planned_are_those_of_the_modules(family, tmp_path):
    name, model_class, fields, left_out = PLANNED[family]
    cls = getattr(transformers, model_class)
    common = {key: value for key, value in _COMMON.items() if not key.endswith("_token_id")}
    config = cls.config_class(**{**common, "pad_token_id": 0, "tie_word_embeddings": False, **fields})
    (tmp_path / "config.json").write_text(json.dumps({**config.to_dict(), "architectures": [name]}))
    model = built(cls, config)
    if left_out is None:
        small = ("position_bias", "tid2eid")
        left_out = sum(p.numel() for key, p in model.named_parameters() if key.endswith(small))
    assert counted(tmp_path / "config.json") == weights(model) - left_out
