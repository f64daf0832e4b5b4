"""MiMo-V2-Flash: five layers of six attend to a window, with other key-value heads; values narrower than keys."""

from __future__ import annotations

from ..config_fields import attention, dense_layers, sliding
from ..config_json import ConfigJson
from . import Architecture, Fields


def _read(config: ConfigJson) -> Fields:
    fields = attention(config)
    layers, heads = fields["num_hidden_layers"], fields["num_key_value_heads"]
    words, old = sliding(config, layers), config.layers_by("hybrid_layer_pattern", layers)
    if words is not None:
        windowed = words
    elif old is not None:
        windowed = [layer for layer, flag in enumerate(old) if flag]
    else:
        windowed = [layer for layer in range(layers) if layer and (layer + 1) % 6]
    for name in ("head_dim", "v_head_dim", "num_attention_heads"):  # one width for both kinds is what is described
        if config.size_or(f"swa_{name}", config.size(name)) != config.size(name):
            raise config.refused(f"swa_{name}", f"{config.size(name)}, as {name} has it,")
    before = config.has("sliding_window_size")  # tokens before the query; the window counts it too
    expert = config.size("moe_intermediate_size")
    given = config.has("mlp_layer_types") or config.has("moe_layer_freq")
    return fields | {
        "v_head_dim": config.size("v_head_dim"),
        "sliding_attention_layers": windowed,
        "sliding_window": config.size("sliding_window_size") + 1 if before else config.size("sliding_window"),
        "sliding_num_key_value_heads": config.size_or("swa_num_key_value_heads", 2 * heads),
        "intermediate_size": config.size("intermediate_size"),
        "num_experts": config.size_by("n_routed_experts", "num_local_experts"),
        "num_experts_per_tok": config.size("num_experts_per_tok"),
        "moe_intermediate_size": expert,
        "shared_expert_intermediate_size": config.count("n_shared_experts", 0) * expert,
        "dense_layers": dense_layers(config, layers) if given else [0],
    }


ARCHITECTURES = (
    Architecture(
        "MiMoV2FlashForCausalLM",
        _read,
        "mimo_v2_flash",
        {
            "head_dim": 192,
            "hidden_size": 4096,
            "intermediate_size": 16384,
            "moe_intermediate_size": 2048,
            "n_routed_experts": 256,
            "num_attention_heads": 64,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 48,
            "num_key_value_heads": 4,
            "sliding_window": 129,
            "v_head_dim": 128,
            "vocab_size": 152576,
        },
        apart=("attention_chunk_size", "sliding_window"),  # sliding_window_size says what runs
    ),
)
