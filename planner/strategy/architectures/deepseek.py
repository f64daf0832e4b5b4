"""DeepSeek V2, V3 (R1 and Kimi-K2 share it) and V3.2, GLM-5, GLM-4.7-Flash, and Kimi-K2.5's text.

Multi-head latent attention, dense first layers, shared experts; V3.2 and GLM-5 with a sparse index, which GLM-5.2 has
in one layer of four.
"""

from __future__ import annotations

from ..config_fields import latent, of_text, with_experts
from ..config_json import ConfigJson
from . import Architecture, Fields


def _read(config: ConfigJson) -> Fields:
    return with_experts(config, latent(config))


def _lite(config: ConfigJson) -> Fields:
    """GLM-4.7-Flash: one dense layer unless the file says more."""
    fields = _read(config)
    if config.has("mlp_layer_types") or config.has("first_k_dense_replace"):
        return fields
    return fields | {"dense_layers": [0], "intermediate_size": config.size("intermediate_size")}


def _indexed(config: ConfigJson) -> Fields:
    config.items("layer_types", str)  # by which transformers names every layer `indexed_attention`
    return _read(config)


def _some_indexed(config: ConfigJson) -> Fields:
    """GLM-5.2: a layer scores for itself (`full`) or reuses what the last such layer kept (`shared`)."""
    fields = _indexed(config)
    layers = fields["num_hidden_layers"]
    kinds = config.kinds("indexer_types", layers, ("full", "shared"))
    pattern = config.text("index_topk_pattern")
    step, first = config.size_or("index_topk_freq", 1), config.count("index_skip_topk_offset", 2)
    if kinds is None and pattern is not None:
        if len(pattern) < layers or set(pattern) - set("FS"):
            raise config.refused("index_topk_pattern", f"F or S for each of {layers} layers")
        kinds = ["full" if letter == "F" else "shared" for letter in pattern[:layers]]
    if kinds is None:
        kinds = ["shared" if max(layer - first + 1, 0) % step else "full" for layer in range(layers)]
    own = [layer for layer, kind in enumerate(kinds) if kind == "full"]
    return fields | ({} if len(own) == layers else {"index_layers": own})


_V2 = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "kv_lora_rank": 512,
    "moe_intermediate_size": 1407,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 102400,
}
_V3 = {
    "first_k_dense_replace": 3,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
}
_V32 = _V3 | {"index_head_dim": 128, "index_n_heads": 64, "index_topk": 2048}
_GLM = _V32 | {
    "hidden_size": 6144,
    "index_n_heads": 32,
    "intermediate_size": 12288,
    "num_attention_heads": 64,
    "num_hidden_layers": 78,
    "num_key_value_heads": 64,
    "q_lora_rank": 2048,
    "qk_nope_head_dim": 192,
    "v_head_dim": 256,
    "vocab_size": 154880,
}

_GLM_LITE = {key: value for key, value in _V3.items() if key != "first_k_dense_replace"} | {
    "hidden_size": 2048,
    "intermediate_size": 10240,
    "moe_intermediate_size": 1536,
    "n_routed_experts": 64,
    "num_attention_heads": 20,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 47,
    "num_key_value_heads": 20,
    "q_lora_rank": 768,
    "qk_nope_head_dim": 192,
    "v_head_dim": 256,
    "vocab_size": 154880,
}

ARCHITECTURES = (
    Architecture("DeepseekV2ForCausalLM", _read, "deepseek_v2", _V2),
    Architecture("DeepseekV3ForCausalLM", _read, "deepseek_v3", _V3),
    Architecture("DeepseekV32ForCausalLM", _indexed, "deepseek_v32", _V32),
    Architecture("Glm4MoeLiteForCausalLM", _lite, "glm4_moe_lite", _GLM_LITE),
    Architecture("GlmMoeDsaForCausalLM", _some_indexed, "glm_moe_dsa", _GLM),
    Architecture("KimiK25ForConditionalGeneration", of_text(_read), "kimi_k25", _V3 | {"tie_word_embeddings": True}),
)
