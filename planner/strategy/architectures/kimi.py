"""Kimi-Linear, and Kimi-K3: delta attention in three layers of four, latent attention without positions in the fourth.

K3 adds gates, experts in a narrower space and attention residuals. transformers has no class of it: read is the file
alone, with what `kimi_linear`, the small model of the kind, confirms.
"""

from __future__ import annotations

from ..config_fields import latent, of_text
from ..config_json import ConfigJson
from . import Architecture, Fields

_ASSUMED = [
    "transformers has no class of kimi_k3: fields are read by their names, and nothing confirms the modules",
    "routed experts lie between one projection to routed_expert_hidden_size and one back, which every rank holds; "
    "their sum is projected back before it travels, so that one message of hidden_size leaves a layer",
    "attention residuals keep the output of every block of attn_res_block_size layers (of attention and MLP each): as "
    "many streams of hidden_size, and the embedding",
    "attention's output gates, of both kinds, are one matrix as wide as what they gate",
]


def _read(config: ConfigJson) -> Fields:
    fields = latent(config)
    layers, expert = fields["num_hidden_layers"], config.size("moe_intermediate_size")
    first, step = config.count("first_k_dense_replace", 1), config.size_or("moe_layer_freq", 1)
    return fields | {
        "assumed": _ASSUMED,
        "attention_output_gate": config.flag("mla_use_output_gate"),
        "intermediate_size": config.size("intermediate_size"),
        "num_experts": config.size_by("num_experts", "num_local_experts"),
        "num_experts_per_tok": config.size_by("num_experts_per_token", "num_experts_per_tok"),
        "moe_intermediate_size": expert,
        "shared_expert_intermediate_size": config.count("num_shared_experts", 0) * expert,
        "dense_layers": [layer for layer in range(layers) if layer < first or layer % step],
        "num_nextn_predict_layers": config.count("num_nextn_predict_layers", 0),
        **config.sizes("routed_expert_hidden_size", "attn_res_block_size"),
        **_linear(config, layers),
    }


def _small(config: ConfigJson) -> Fields:
    """Kimi-Linear, in the words of its checkpoint or of transformers."""
    fields = latent(config)
    layers, expert = fields["num_hidden_layers"], config.size("moe_intermediate_size")
    words = config.kinds("mlp_layer_types", layers, ("dense", "sparse"))
    first, step = config.count("first_k_dense_replace", 1), config.size_or("moe_layer_freq", 1)
    dense = [layer for layer in range(layers) if layer < first or layer % step]
    if words is not None:
        dense = [layer for layer, word in enumerate(words) if word == "dense"]
    shared = "num_shared_experts" if config.has("num_shared_experts") else "n_shared_experts"
    return fields | {
        "intermediate_size": config.size("intermediate_size"),
        "num_experts": config.size_by("num_local_experts", "num_experts"),
        "num_experts_per_tok": config.size_by("num_experts_per_tok", "num_experts_per_token"),
        "moe_intermediate_size": expert,
        "shared_expert_intermediate_size": config.count(shared, 0) * expert,
        "dense_layers": dense,
        **_linear_of_class(config, layers),
    }


def _linear_of_class(config: ConfigJson, layers: int) -> Fields:
    """As transformers spells it: a word for each layer, sizes with a prefix; else as the checkpoint does."""
    words = config.kinds("layer_types", layers, ("full_attention", "linear_attention"))
    heads, width = config.size("linear_num_heads"), config.size("linear_head_dim")
    window = config.size("linear_conv_kernel_dim")
    if config.has("linear_attn_config"):
        fields = _linear(config, layers)
        width = fields["linear_key_head_dim"]
    else:
        fields = {
            "linear_attention_layers": [layer for layer in range(layers) if not layer or layer % 4],
            "linear_conv_kernel_dim": window,
            "linear_key_head_dim": width,
            "linear_num_key_heads": heads,
            "linear_num_value_heads": heads,
            "linear_value_head_dim": width,
            "linear_decay_rank": width,
        }
    if words is not None:
        fields["linear_attention_layers"] = [n for n, word in enumerate(words) if word == "linear_attention"]
    return fields | {"linear_gate_rank": width}


def _linear(config: ConfigJson, layers: int) -> Fields:
    """The layers of delta attention, which the file counts from 1."""
    given = config.mapping("linear_attn_config")
    if given is None:
        raise config.missing("linear_attn_config")
    own = [layer - 1 for layer in given.items("kda_layers", int)]
    if not all(0 <= layer < layers for layer in own):
        raise given.refused("kda_layers", f"layers from 1 to {layers}")
    heads, width = given.size("num_heads"), given.size("head_dim")
    return {
        "linear_attention_layers": sorted(own),
        "linear_conv_kernel_dim": given.size("short_conv_kernel_size"),
        "linear_key_head_dim": width,
        "linear_num_key_heads": heads,
        "linear_num_value_heads": heads,
        "linear_value_head_dim": width,
        "linear_decay_rank": width,
    }


ARCHITECTURES = (
    Architecture("KimiK3ForConditionalGeneration", of_text(_read)),
    Architecture(
        "KimiLinearForCausalLM",
        _small,
        "kimi_linear",
        {
            "hidden_size": 2304,
            "intermediate_size": 9216,
            "kv_lora_rank": 512,
            "linear_conv_kernel_dim": 4,
            "linear_head_dim": 128,
            "linear_num_heads": 32,
            "moe_intermediate_size": 1024,
            "n_shared_experts": 1,
            "num_attention_heads": 32,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 27,
            "num_key_value_heads": 32,
            "num_local_experts": 256,
            "qk_nope_head_dim": 128,
            "qk_rope_head_dim": 64,
            "v_head_dim": 128,
            "vocab_size": 163840,
        },
    ),
)
