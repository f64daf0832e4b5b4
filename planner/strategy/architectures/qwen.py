"""Qwen2, Qwen3 (dense and MoE) and Qwen3.5 (linear attention in three layers of four, MoE)."""

from __future__ import annotations

from ..bounds import MAX_LAYERS
from ..config_json import ConfigJson
from . import Architecture, Fields


def _attention(config: ConfigJson) -> Fields:
    heads, hidden = config.size("num_attention_heads"), config.size("hidden_size")
    return {
        "hidden_size": hidden,
        "num_hidden_layers": config.size("num_hidden_layers", MAX_LAYERS),
        "vocab_size": config.size("vocab_size"),
        "num_attention_heads": heads,
        "num_key_value_heads": config.size_or("num_key_value_heads", heads),
        "head_dim": config.size_or("head_dim", hidden // heads),
        "tie_word_embeddings": config.flag("tie_word_embeddings"),
    }


def _dense(config: ConfigJson) -> Fields:
    return _attention(config) | {"intermediate_size": config.size("intermediate_size")}


def _moe(config: ConfigJson) -> Fields:
    fields = _attention(config)
    step = config.size_or("decoder_sparse_step", 1)
    by_hand = set(config.items("mlp_only_layers", int))
    layers = range(fields["num_hidden_layers"])
    return fields | {
        "num_experts": config.size_by("num_experts", "num_local_experts"),  # the latter since transformers 5
        "num_experts_per_tok": config.size("num_experts_per_tok"),
        "moe_intermediate_size": config.size("moe_intermediate_size"),
        "shared_expert_intermediate_size": config.count("shared_expert_intermediate_size", 0),
        "dense_layers": [layer for layer in layers if layer in by_hand or (layer + 1) % step],
        **config.sizes("intermediate_size"),
    }


def _hybrid_moe(outer: ConfigJson) -> Fields:
    config = outer.section("text_config")
    fields = _moe(config)
    return fields | {
        "tie_word_embeddings": outer.flag("tie_word_embeddings"),
        "linear_attention_layers": _linear_layers(config, fields["num_hidden_layers"]),
        **config.sizes(
            "linear_conv_kernel_dim",
            "linear_key_head_dim",
            "linear_num_key_heads",
            "linear_num_value_heads",
            "linear_value_head_dim",
        ),
    }


def _linear_layers(config: ConfigJson, num_layers: int) -> list[int]:
    kinds = config.items("layer_types", str)
    if not kinds:
        interval = config.size("full_attention_interval")
        return [layer for layer in range(num_layers) if (layer + 1) % interval]
    if len(kinds) != num_layers or set(kinds) - {"full_attention", "linear_attention"}:
        raise config.refused("layer_types", f"full_attention or linear_attention for each of {num_layers} layers")
    return [layer for layer, kind in enumerate(kinds) if kind == "linear_attention"]


ARCHITECTURES = (
    Architecture("Qwen2ForCausalLM", _dense),
    Architecture("Qwen3ForCausalLM", _dense),
    Architecture("Qwen3MoeForCausalLM", _moe),
    Architecture("Qwen3_5MoeForConditionalGeneration", _hybrid_moe),
)
