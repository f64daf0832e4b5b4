"""DeepSeek-V4: hyper-connections between layers, one key-value head pooled over positions, experts in every layer."""

from __future__ import annotations

from ..config_fields import attention
from ..config_json import ConfigJson
from . import Architecture, Fields

_RATIOS = {"sliding_attention": 0, "compressed_sparse_attention": 4, "heavily_compressed_attention": 128}


def _read(config: ConfigJson) -> Fields:
    fields = attention(config)
    expert = config.size("moe_intermediate_size")
    layers = fields["num_hidden_layers"]
    config.kinds(
        "mlp_layer_types", layers, ("hash_moe", "moe"), longer=True
    )  # who picks the experts changes nothing here
    return fields | {
        "q_lora_rank": config.size("q_lora_rank"),
        "o_groups": config.size("o_groups"),
        "o_lora_rank": config.size("o_lora_rank"),
        "index_head_dim": config.size("index_head_dim"),
        "index_n_heads": config.size("index_n_heads"),
        "index_topk": config.size("index_topk"),
        "compress_ratios": _ratios(config, layers),
        "sliding_window": config.size("sliding_window"),
        "hc_mult": config.size("hc_mult"),
        "num_experts": config.size_by("n_routed_experts", "num_local_experts"),
        "num_experts_per_tok": config.size("num_experts_per_tok"),
        "moe_intermediate_size": expert,
        "shared_expert_intermediate_size": config.count("n_shared_experts", 0) * expert,
        "num_nextn_predict_layers": config.count("num_nextn_predict_layers", 0),
    }


def _ratios(config: ConfigJson, layers: int) -> list[int]:
    """By words for the layers, by numbers, or as transformers has it: two pooled heavily, then in turns."""
    words = config.kinds("layer_types", layers, tuple(_RATIOS), longer=True)
    numbers = config.layers_by("compress_ratios", layers, longer=True)
    if words is not None:
        return [_RATIOS[word] for word in words]
    if numbers is not None:
        if set(numbers) - set(_RATIOS.values()):
            raise config.refused("compress_ratios", f"{', '.join(map(str, _RATIOS.values()))} for each layer")
        return numbers
    return [128] * min(layers, 2) + [4 if layer % 2 else 128 for layer in range(max(layers - 2, 0))]


ARCHITECTURES = (
    Architecture(
        "DeepseekV4ForCausalLM",
        _read,
        "deepseek_v4",
        {
            "hc_mult": 4,
            "head_dim": 512,
            "hidden_size": 4096,
            "index_head_dim": 128,
            "index_n_heads": 64,
            "index_topk": 512,
            "moe_intermediate_size": 2048,
            "n_routed_experts": 256,
            "n_shared_experts": 1,
            "num_attention_heads": 64,
            "num_experts_per_tok": 6,
            "num_hidden_layers": 43,
            "num_key_value_heads": 1,
            "num_nextn_predict_layers": 1,
            "o_groups": 8,
            "o_lora_rank": 1024,
            "q_lora_rank": 1024,
            "sliding_window": 128,
            "vocab_size": 129280,
        },
    ),
)
