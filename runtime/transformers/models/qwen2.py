"""Qwen2: grouped-query attention."""

from . import Adapter

ADAPTER = Adapter("Qwen2ForCausalLM", "qwen2", column=("q_proj",), kv=("k_proj", "v_proj"))
