"""Qwen2, Qwen3 (dense, MoE, and the text of VL), Qwen3-Next and Qwen3.5 (linear attention in three layers of four)."""

from __future__ import annotations

from ..config_fields import attention, dense, of_text, sliding
from ..config_json import ConfigJson
from . import Architecture, Fields


def _windowed(config: ConfigJson, fields: Fields) -> Fields:
    """Layers with a window: those from max_window_layers on, where the file says that windows are used."""
    layers = fields["num_hidden_layers"]
    windowed = sliding(config, layers)
    first, used = config.count("max_window_layers", 28), config.flag("use_sliding_window")
    if not used:
        return {}
    if windowed is None:
        windowed = list(range(min(first, layers), layers))
    return {"sliding_attention_layers": windowed, "sliding_window": config.size("sliding_window")} if windowed else {}


def _dense(config: ConfigJson) -> Fields:
    fields = dense(config)
    return fields | _windowed(config, fields)


def _moe(config: ConfigJson) -> Fields:
    fields = attention(config)
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


def _windowed_moe(config: ConfigJson) -> Fields:
    """Qwen3-MoE: a window, where it is used, is that of every layer."""
    fields = _moe(config)
    if not config.flag("use_sliding_window"):
        return fields
    layers = list(range(fields["num_hidden_layers"]))
    return fields | {"sliding_attention_layers": layers, "sliding_window": config.size("sliding_window")}


def _hybrid(config: ConfigJson, fields: Fields) -> Fields:
    """Linear attention, and full attention whose queries bring a gate of their own width."""
    mtp = "mtp_num_hidden_layers" if config.has("mtp_num_hidden_layers") else "num_nextn_predict_layers"
    config.flag("attn_output_gate")  # the modules have it whatever the file says
    return fields | {
        "attention_output_gate": True,
        "num_nextn_predict_layers": config.count(mtp, 0),
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
    kinds = config.kinds("layer_types", num_layers, ("full_attention", "linear_attention"))
    if kinds is None:
        interval = config.size_or("full_attention_interval", 4)
        return [layer for layer in range(num_layers) if (layer + 1) % interval]
    return [layer for layer, kind in enumerate(kinds) if kind == "linear_attention"]


def _hybrid_moe(config: ConfigJson) -> Fields:
    return _hybrid(config, _moe(config))


def _hybrid_dense(config: ConfigJson) -> Fields:
    return _hybrid(config, dense(config))


_QWEN3 = {
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "sliding_window": 4096,
    "vocab_size": 151936,
}
_LINEAR = {
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
}
_QWEN3_MOE = {
    "sliding_window": 4096,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 24,
    "num_key_value_heads": 4,
    "vocab_size": 151936,
}
_QWEN3_VL_MOE = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "moe_intermediate_size": 1408,
    "num_attention_heads": 16,
    "num_experts": 60,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 16,
    "vocab_size": 151936,
}
_QWEN3_NEXT = {
    "head_dim": 256,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "moe_intermediate_size": 512,
    "num_attention_heads": 16,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "num_hidden_layers": 48,
    "num_key_value_heads": 2,
    "shared_expert_intermediate_size": 512,
    "vocab_size": 151936,
} | _LINEAR
_QWEN3_5 = {
    "head_dim": 256,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_attention_heads": 16,
    "num_hidden_layers": 32,
    "num_key_value_heads": 4,
    "vocab_size": 248320,
} | _LINEAR
_QWEN3_5_MOE = {
    "head_dim": 256,
    "hidden_size": 2048,
    "moe_intermediate_size": 512,
    "num_attention_heads": 16,
    "num_experts": 256,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 40,
    "num_key_value_heads": 2,
    "shared_expert_intermediate_size": 512,
    "vocab_size": 248320,
} | _LINEAR

_IDLE = ("sliding_window",)  # unless use_sliding_window is true, and then it is read

ARCHITECTURES = (
    Architecture("Qwen2ForCausalLM", _dense, "qwen2", _QWEN3, _IDLE),
    Architecture("Qwen3ForCausalLM", _dense, "qwen3", _QWEN3 | {"head_dim": 128}, _IDLE),
    Architecture("Qwen3MoeForCausalLM", _windowed_moe, "qwen3_moe", _QWEN3_MOE, _IDLE),
    Architecture(
        "Qwen3VLForConditionalGeneration",
        of_text(dense),
        "qwen3_vl",
        {key: value for key, value in _QWEN3.items() if key != "sliding_window"} | {"head_dim": 128},
    ),
    Architecture("Qwen3VLMoeForConditionalGeneration", of_text(_moe), "qwen3_vl_moe", _QWEN3_VL_MOE),
    Architecture("Qwen3NextForCausalLM", _hybrid_moe, "qwen3_next", _QWEN3_NEXT),
    Architecture("Qwen3_5ForConditionalGeneration", of_text(_hybrid_dense), "qwen3_5", _QWEN3_5),
    Architecture("Qwen3_5ForCausalLM", _hybrid_dense, "qwen3_5_text", _QWEN3_5),
    Architecture("Qwen3_5MoeForCausalLM", _hybrid_moe, "qwen3_5_moe_text", _QWEN3_5_MOE),
    Architecture("Qwen3_5MoeForConditionalGeneration", of_text(_hybrid_moe), "qwen3_5_moe", _QWEN3_5_MOE),
)
