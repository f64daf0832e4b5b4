"""Qwen3: grouped-query attention."""

from . import Adapter

ADAPTER = Adapter("Qwen3ForCausalLM", column=("q_proj",), kv=("k_proj", "v_proj"))
