"""Shapes of models that servers are measured with: config.json alone, since weights are made up by --load-format dummy.

Layers may be fewer than the model has; everything else is as published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 5120,
    "initializer_range": 0.02,
    "intermediate_size": 25600,
    "max_position_embeddings": 40960,
    "num_attention_heads": 64,
    "num_hidden_layers": 64,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
_QWEN3_MOE = _QWEN3 | {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "decoder_sparse_step": 1,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "mlp_only_layers": [],
    "moe_intermediate_size": 1536,
    "norm_topk_prob": True,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 94,
    "num_key_value_heads": 4,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
}
_DEEPSEEK_V3: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "first_k_dense_replace": 3,
    "hidden_act": "silu",
    "hidden_size": 7168,
    "initializer_range": 0.02,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-6,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "v_head_dim": 128,
    "vocab_size": 129280,
}


@dataclass(frozen=True)
class Shape:
    """A model's shape, the deployment that plans are made of, and what of the deployment has to be said otherwise."""

    config: dict[str, Any]
    deployment: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    default_fusion: bool = False
    """True where the unmodified server sums by FlashInfer's fused kernel: a row counts only if it says that it does."""


SHAPES = {
    "qwen3-32b": Shape(_QWEN3, "qwen3-32b-h200-tp2"),
    "qwen3-235b": Shape(
        _QWEN3_MOE,
        "qwen3-235b-h200-tp8",
        {"hardware": "h200-2", "parallelism": {"tp": 2}, "dtypes.weights": "bf16"},
        default_fusion=True,
    ),
    "deepseek-v3": Shape(
        _DEEPSEEK_V3, "deepseek-r1-h200-tp2", {"dtypes.weights": "bf16", "loaded_layers": None}, default_fusion=True
    ),
}


def write_model(shape: str, layers: int | None, folder: Path) -> Path:
    """A folder below `folder` with the config.json of a shape; `layers`: of fewer than it has."""
    config = dict(SHAPES[shape].config)
    config["num_hidden_layers"] = layers or config["num_hidden_layers"]
    found = folder / f"{shape}-{config['num_hidden_layers']}l"
    found.mkdir(parents=True, exist_ok=True)
    (found / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    return found
