"""Glm4Moe: grouped-query attention."""

from . import Adapter

ADAPTER = Adapter("Glm4MoeForCausalLM", "glm4_moe", column=("q_proj",), kv=("k_proj", "v_proj"))
