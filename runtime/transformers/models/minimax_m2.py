"""MiniMax-M2: grouped-query attention whose queries and keys are normed over all heads at once."""

from . import Adapter

ADAPTER = Adapter(
    "MiniMaxM2ForCausalLM",
    "minimax_m2",
    column=("q_proj", "q_norm"),
    kv=("k_proj", "v_proj", "k_norm"),
    norms=("q_norm", "k_norm"),
)
