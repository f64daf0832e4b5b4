"""Qwen3-Next: linear attention in three layers of four; in the fourth, queries with a gate of their own."""

from . import Adapter, LinearAttention

ADAPTER = Adapter(
    "Qwen3NextForCausalLM",
    "qwen3_next",
    column=("q_proj",),  # a head's queries and their gate lie side by side
    kv=("k_proj", "v_proj"),
    linear=LinearAttention(
        column=("in_proj_qkvz", "in_proj_ba", "dt_bias", "A_log"),  # all of a key head lies side by side
        blocks={"conv1d": ("key_dim", "key_dim", "value_dim")},
        counts=("num_k_heads", "num_v_heads", "key_dim", "value_dim", "conv_dim"),
    ),
)
