"""DeepSeek V2, V3 (R1 shares it) and V3.2: multi-head latent attention, dense first layers, shared experts."""

from __future__ import annotations

from ..bounds import MAX_LAYERS
from ..config_json import ConfigJson
from . import Architecture, Fields


def _read(config: ConfigJson) -> Fields:
    layers = config.size("num_hidden_layers", MAX_LAYERS)
    first = config.count("first_k_dense_replace", 0)
    step = config.size_or("moe_layer_freq", 1)
    heads, expert = config.size("num_attention_heads"), config.size("moe_intermediate_size")
    nope, rope = config.size("qk_nope_head_dim"), config.size("qk_rope_head_dim")
    return {
        "hidden_size": config.size("hidden_size"),
        "num_hidden_layers": layers,
        "vocab_size": config.size("vocab_size"),
        "num_attention_heads": heads,
        "num_key_value_heads": config.size_or("num_key_value_heads", heads),
        "head_dim": nope + rope,
        "tie_word_embeddings": config.flag("tie_word_embeddings"),
        "intermediate_size": config.size("intermediate_size"),
        "num_experts": config.size_by("n_routed_experts", "num_local_experts"),
        "num_experts_per_tok": config.size("num_experts_per_tok"),
        "moe_intermediate_size": expert,
        "shared_expert_intermediate_size": config.count("n_shared_experts", 0) * expert,
        "dense_layers": [layer for layer in range(layers) if layer < first or layer % step],
        "kv_lora_rank": config.size("kv_lora_rank"),
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": rope,
        "v_head_dim": config.size("v_head_dim"),
        **config.sizes("q_lora_rank", "index_head_dim", "index_n_heads", "index_topk"),
    }


ARCHITECTURES = (
    Architecture("DeepseekV2ForCausalLM", _read),
    Architecture("DeepseekV3ForCausalLM", _read),
    Architecture("DeepseekV32ForCausalLM", _read),
)
