"""Qwen2: grouped-query attention."""

from . import Adapter

ADAPTER = Adapter("Qwen2ForCausalLM", column=("q_proj",), kv=("k_proj", "v_proj"))
