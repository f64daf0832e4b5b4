"""Glm4MoeLite: multi-head latent attention; the latents are replicated, the heads sharded."""

from . import Adapter

ADAPTER = Adapter(
    "Glm4MoeLiteForCausalLM",
    "glm4_moe_lite",
    column=("q_proj", "q_b_proj", "kv_b_proj"),
    latent=("q_a_proj", "kv_a_proj_with_mqa"),
)
