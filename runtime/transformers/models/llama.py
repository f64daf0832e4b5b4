"""Llama: grouped-query attention."""

from . import Adapter

ADAPTER = Adapter("LlamaForCausalLM", "llama", column=("q_proj",), kv=("k_proj", "v_proj"))
