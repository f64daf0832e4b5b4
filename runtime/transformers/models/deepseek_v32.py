"""DeepseekV32: multi-head latent attention with a sparse indexer, which every rank runs whole."""

from . import Adapter

ADAPTER = Adapter(
    "DeepseekV32ForCausalLM",
    "deepseek_v32",
    column=("q_b_proj", "kv_b_proj"),
    latent=("q_a_proj", "kv_a_proj_with_mqa", "indexer.wk", "indexer.weights_proj"),
)
