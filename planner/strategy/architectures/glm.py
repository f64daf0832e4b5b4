"""GLM-4.5 to 4.7, and the text of 4.5V: grouped-query attention, dense first layers, shared experts.

GLM-5 and GLM-4.7-Flash have latent attention: they are in deepseek.py.
"""

from __future__ import annotations

from ..config_fields import attention, of_text, with_experts
from ..config_json import ConfigJson
from . import Architecture, Fields


def _read(config: ConfigJson) -> Fields:
    return with_experts(config, attention(config))


_DEFAULTS = {
    "first_k_dense_replace": 1,
    "hidden_size": 4096,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "n_routed_experts": 128,
    "n_shared_experts": 1,
    "num_attention_heads": 96,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 46,
    "num_key_value_heads": 8,
    "vocab_size": 151552,
}

ARCHITECTURES = (
    Architecture("Glm4MoeForCausalLM", _read, "glm4_moe", _DEFAULTS),
    Architecture("Glm4vMoeForConditionalGeneration", of_text(_read), "glm4v_moe", _DEFAULTS | {"vocab_size": 151424}),
)
