"""Llama 2 to 3.3: dense, grouped-query attention."""

from __future__ import annotations

from ..config_fields import dense
from . import Architecture

ARCHITECTURES = (
    Architecture(
        "LlamaForCausalLM",
        dense,
        "llama",
        {
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_attention_heads": 32,
            "num_hidden_layers": 32,
            "vocab_size": 32000,
        },
    ),
)
