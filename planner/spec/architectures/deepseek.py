"""DeepSeek V2, V3 (R1 shares it) and V3.2: multi-head latent attention, dense first layers, shared experts."""

from __future__ import annotations

from . import Architecture, Config


def _read(config: Config) -> Config:
    layers = config["num_hidden_layers"]
    first = config.get("first_k_dense_replace", 0)
    step = config.get("moe_layer_freq", 1) or 1
    dense = [layer for layer in range(layers) if layer < first or layer % step]
    nope, rope = config["qk_nope_head_dim"], config["qk_rope_head_dim"]
    optional = {
        key: config[key]
        for key in ("q_lora_rank", "index_head_dim", "index_n_heads", "index_topk")
        if config.get(key) is not None
    }
    return {
        "hidden_size": config["hidden_size"],
        "num_hidden_layers": layers,
        "vocab_size": config["vocab_size"],
        "num_attention_heads": config["num_attention_heads"],
        "num_key_value_heads": config.get("num_key_value_heads") or config["num_attention_heads"],
        "head_dim": nope + rope,
        "tie_word_embeddings": config.get("tie_word_embeddings", False),
        "intermediate_size": config["intermediate_size"],
        "num_experts": config["n_routed_experts"],
        "num_experts_per_tok": config["num_experts_per_tok"],
        "moe_intermediate_size": config["moe_intermediate_size"],
        "shared_expert_intermediate_size": (config.get("n_shared_experts") or 0) * config["moe_intermediate_size"],
        "dense_layers": dense,
        "kv_lora_rank": config["kv_lora_rank"],
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": rope,
        "v_head_dim": config["v_head_dim"],
        **optional,
    }


ARCHITECTURES = (
    Architecture("DeepseekV2ForCausalLM", _read),
    Architecture("DeepseekV3ForCausalLM", _read),
    Architecture("DeepseekV32ForCausalLM", _read),
)
