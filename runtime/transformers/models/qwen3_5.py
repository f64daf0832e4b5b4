"""Qwen3.5: linear attention in three layers of four; in the fourth, queries with a gate of their own."""

from . import Adapter, LinearAttention

ADAPTER = Adapter(
    "Qwen3_5ForCausalLM",
    "qwen3_5_text",
    column=("q_proj",),  # a head's queries and their gate lie side by side
    kv=("k_proj", "v_proj"),
    linear=LinearAttention(
        column=("in_proj_z", "in_proj_b", "in_proj_a", "dt_bias", "A_log"),
        blocks=dict.fromkeys(("in_proj_qkv", "conv1d"), ("key_dim", "key_dim", "value_dim")),
        counts=("num_k_heads", "num_v_heads", "key_dim", "value_dim", "conv_dim"),
    ),
)
