"""Kimi-K3: Kimi's delta attention in three layers of four, gated latent attention without positions in the fourth,
experts in a narrower space, and attention residuals.

transformers has no class of it: read is the file alone, with what `kimi_linear`, the small model of the kind, confirms.
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
    config.flag("mla_use_output_gate")
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


ARCHITECTURES = (Architecture("KimiK3ForConditionalGeneration", of_text(_read)),)
