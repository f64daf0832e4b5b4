"""Qwen3: grouped-query attention."""

from . import Adapter

ADAPTER = Adapter("Qwen3ForCausalLM", "qwen3", column=("q_proj",), kv=("k_proj", "v_proj"))
