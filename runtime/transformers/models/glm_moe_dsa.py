"""GlmMoeDsa (GLM-5): as DeepSeek-V3.2; layers without an indexer take the choice of the last layer that has one."""

from . import Adapter

ADAPTER = Adapter(
    "GlmMoeDsaForCausalLM",
    "glm_moe_dsa",
    column=("q_b_proj", "kv_b_proj"),
    latent=("q_a_proj", "kv_a_proj_with_mqa", "indexer.wk", "indexer.weights_proj"),
)
