"""DeepseekV3: multi-head latent attention; the latents are replicated, the heads sharded."""

from . import Adapter

ADAPTER = Adapter(
    "DeepseekV3ForCausalLM",
    "deepseek_v3",
    column=("q_proj", "q_b_proj", "kv_b_proj"),
    latent=("q_a_proj", "kv_a_proj_with_mqa"),
)
