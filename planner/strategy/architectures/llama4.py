"""Llama 4: three layers of four attend within a chunk; experts in every n-th layer, one of them shared."""

from __future__ import annotations

from ..config_fields import attention, of_text, sliding
from ..config_json import ConfigJson
from . import Architecture, Fields


def _read(config: ConfigJson) -> Fields:
    fields = attention(config)
    layers = fields["num_hidden_layers"]
    step, expert = config.size("interleave_moe_layer_step"), config.size("intermediate_size")
    given = config.items("moe_layers", int) if config.has("moe_layers") else None
    experts = set(range(step - 1, layers, step) if given is None else given)
    dense = [layer for layer in range(layers) if layer not in experts]
    chunked, wide = _chunked(config, layers), config.size("intermediate_size_mlp")
    return fields | {
        "num_experts": config.size("num_local_experts"),
        "num_experts_per_tok": config.size("num_experts_per_tok"),
        "moe_intermediate_size": expert,
        "shared_expert_intermediate_size": expert,
        "dense_layers": dense,
        **({"intermediate_size": wide} if dense else {}),
        "sliding_attention_layers": chunked,
        **({"sliding_window": config.size("attention_chunk_size")} if chunked else {}),
    }


def _chunked(config: ConfigJson, layers: int) -> list[int]:
    """Layers with positions (`no_rope_layers` holds 1) attend within a chunk, the others to everything."""
    words = sliding(config, layers, "chunked_attention")
    with_positions = config.layers_by("no_rope_layers", layers) if config.items("no_rope_layers", int) else None
    interval = config.size_or("no_rope_layer_interval", 4)
    if words is not None:
        return words
    if with_positions is not None:
        return [layer for layer, flag in enumerate(with_positions) if flag]
    return [layer for layer in range(layers) if (layer + 1) % interval]


ARCHITECTURES = (
    Architecture(
        "Llama4ForConditionalGeneration",
        of_text(_read),
        "llama4",
        {
            "attention_chunk_size": 8192,
            "head_dim": 128,
            "hidden_size": 5120,
            "interleave_moe_layer_step": 1,
            "intermediate_size": 8192,
            "intermediate_size_mlp": 16384,
            "num_attention_heads": 40,
            "num_experts_per_tok": 1,
            "num_hidden_layers": 48,
            "num_key_value_heads": 8,
            "num_local_experts": 16,
            "vocab_size": 202048,
        },
    ),
)
