"""Qwen2, Qwen3 (dense and MoE) and Qwen3.5 (linear attention in three layers of four, MoE)."""

from __future__ import annotations

from . import Architecture, Config


def _attention(config: Config) -> Config:
    heads = config["num_attention_heads"]
    return {
        "hidden_size": config["hidden_size"],
        "num_hidden_layers": config["num_hidden_layers"],
        "vocab_size": config["vocab_size"],
        "num_attention_heads": heads,
        "num_key_value_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "tie_word_embeddings": config.get("tie_word_embeddings", False),
    }


def _dense(config: Config) -> Config:
    return _attention(config) | {"intermediate_size": config["intermediate_size"]}


def _moe(config: Config) -> Config:
    layers = config["num_hidden_layers"]
    step = config.get("decoder_sparse_step", 1) or 1
    by_hand = set(config.get("mlp_only_layers") or ())
    dense = [layer for layer in range(layers) if layer in by_hand or (layer + 1) % step]
    fields = _attention(config) | {
        "num_experts": config["num_experts"],
        "num_experts_per_tok": config["num_experts_per_tok"],
        "moe_intermediate_size": config["moe_intermediate_size"],
        "shared_expert_intermediate_size": config.get("shared_expert_intermediate_size") or 0,
        "dense_layers": dense,
    }
    if config.get("intermediate_size") is not None:
        fields["intermediate_size"] = config["intermediate_size"]
    return fields


def _hybrid_moe(outer: Config) -> Config:
    config = outer.get("text_config", outer)
    kinds = config.get("layer_types")
    if kinds is None:
        interval = config["full_attention_interval"]
        kinds = [
            "full_attention" if (layer + 1) % interval == 0 else "linear_attention"
            for layer in range(config["num_hidden_layers"])
        ]
    linear = {key: config[key] for key in config if key.startswith("linear_")}
    return _moe({**config, "tie_word_embeddings": outer.get("tie_word_embeddings", False)}) | {
        "linear_attention_layers": [i for i, kind in enumerate(kinds) if kind == "linear_attention"],
        **linear,
    }


ARCHITECTURES = (
    Architecture("Qwen2ForCausalLM", _dense),
    Architecture("Qwen3ForCausalLM", _dense),
    Architecture("Qwen3MoeForCausalLM", _moe),
    Architecture("Qwen3_5MoeForConditionalGeneration", _hybrid_moe),
)
