"""Qwen3.5 with experts: attention as in the dense one."""

from . import Adapter
from .qwen3_5 import ADAPTER as DENSE

ADAPTER = Adapter("Qwen3_5MoeForCausalLM", "qwen3_5_moe_text", column=DENSE.column, kv=DENSE.kv, linear=DENSE.linear)
