"""gpt-oss: experts in every layer, every second layer attends to a window; sinks and biases are too small to count."""

from __future__ import annotations

from ..config_fields import attention, sliding
from ..config_json import ConfigJson
from . import Architecture, Fields


def _read(config: ConfigJson) -> Fields:
    fields = attention(config)
    layers = fields["num_hidden_layers"]
    windowed = sliding(config, layers)
    return fields | {
        "num_experts": config.size_by("num_local_experts", "num_experts"),
        "num_experts_per_tok": config.size_by("num_experts_per_tok", "experts_per_token"),
        "moe_intermediate_size": config.size("intermediate_size"),
        "sliding_attention_layers": list(range(0, layers, 2)) if windowed is None else windowed,
        "sliding_window": config.size("sliding_window"),
    }


ARCHITECTURES = (
    Architecture(
        "GptOssForCausalLM",
        _read,
        "gpt_oss",
        {
            "head_dim": 64,
            "hidden_size": 2880,
            "intermediate_size": 2880,
            "num_attention_heads": 64,
            "num_experts_per_tok": 4,
            "num_hidden_layers": 36,
            "num_key_value_heads": 8,
            "num_local_experts": 128,
            "sliding_window": 128,
            "vocab_size": 201088,
        },
    ),
)
