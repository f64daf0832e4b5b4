"""What the config.json files of many families have in common, as fields of a commplan model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .bounds import MAX_LAYERS
from .config_json import ConfigJson

Fields = dict[str, Any]
Reader = Callable[[ConfigJson], Fields]


def attention(config: ConfigJson) -> Fields:
    """Sizes of the decoder and of grouped-query attention."""
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


def dense(config: ConfigJson) -> Fields:
    """Attention and a gated MLP in every layer."""
    return attention(config) | {"intermediate_size": config.size("intermediate_size")}


def latent(config: ConfigJson) -> Fields:
    """Multi-head latent attention, in place of what `attention` says of key-value heads."""
    nope, rope = config.size("qk_nope_head_dim"), config.size("qk_rope_head_dim")
    heads = config.size("num_attention_heads")
    return {
        "hidden_size": config.size("hidden_size"),
        "num_hidden_layers": config.size("num_hidden_layers", MAX_LAYERS),
        "vocab_size": config.size("vocab_size"),
        "num_attention_heads": heads,
        "num_key_value_heads": config.size_or("num_key_value_heads", heads),
        "head_dim": nope + rope,
        "tie_word_embeddings": config.flag("tie_word_embeddings"),
        "kv_lora_rank": config.size("kv_lora_rank"),
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": rope,
        "v_head_dim": config.size("v_head_dim"),
        **config.sizes("q_lora_rank", "index_head_dim", "index_n_heads", "index_topk"),
    }


def with_experts(config: ConfigJson, fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of attention, and of an MLP as DeepSeek names it: dense first layers, then experts, some shared."""
    expert, dense = config.size("moe_intermediate_size"), dense_layers(config, fields["num_hidden_layers"])
    return fields | {
        **({"intermediate_size": config.size("intermediate_size")} if dense else config.sizes("intermediate_size")),
        "num_experts": config.size_by("n_routed_experts", "num_local_experts"),
        "num_experts_per_tok": config.size("num_experts_per_tok"),
        "moe_intermediate_size": expert,
        "shared_expert_intermediate_size": config.count("n_shared_experts", 0) * expert,
        "dense_layers": dense,
        "num_nextn_predict_layers": config.count("num_nextn_predict_layers", 0),
    }


def dense_layers(config: ConfigJson, num_layers: int) -> list[int]:
    """The layers without experts, by a word for each layer, a number for each, or the first and every n-th."""
    words = config.kinds("mlp_layer_types", num_layers, ("dense", "sparse"))
    numbers = config.layers_by("moe_layer_freq", num_layers)
    first = config.count("first_k_dense_replace", 0)
    if words is not None:
        return [layer for layer, word in enumerate(words) if word == "dense"]
    if numbers is not None:
        return [layer for layer, number in enumerate(numbers) if not number]
    step = config.size_or("moe_layer_freq", 1)
    return [layer for layer in range(num_layers) if layer < first or layer % step]


def sliding(config: ConfigJson, num_layers: int, word: str = "sliding_attention") -> list[int] | None:
    """The layers that attend to a window, by their words; None where there are none."""
    words = config.kinds("layer_types", num_layers, ("full_attention", word))
    return None if words is None else [layer for layer, kind in enumerate(words) if kind == word]


def of_text(read: Reader) -> Reader:
    """The reading of a model with more than text: what `text_config` says, with embeddings tied as the whole says."""

    def reader(outer: ConfigJson) -> Fields:
        fields = read(outer.section("text_config"))
        return fields | {"tie_word_embeddings": outer.flag("tie_word_embeddings")}

    return reader
