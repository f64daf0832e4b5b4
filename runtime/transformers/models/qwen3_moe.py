"""Qwen3Moe: grouped-query attention."""

from . import Adapter

ADAPTER = Adapter("Qwen3MoeForCausalLM", "qwen3_moe", column=("q_proj",), kv=("k_proj", "v_proj"))
