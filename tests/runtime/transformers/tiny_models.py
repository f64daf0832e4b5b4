"""Tiny random checkpoints, one per model family: a config.json and weights of a few hundred KB, made in a moment.

    python tests/runtime/transformers/tiny_models.py deepseek_v3 build/deepseek_v3

Between them they have what makes sharding hard: a vocabulary that no number of ranks divides, fewer KV heads than
ranks, tied embeddings, biases on every attention projection, MLA with and without q_lora_rank, dense and MoE layers.

Top-k selections (routers, V3.2's indexer) must not depend on the order of float additions, so their inputs are spread
wide, and the seeds are those whose smallest margin on the tests' prompts is largest (see prompts.py).
"""

from __future__ import annotations

import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VOCAB_SIZE = 131
_COMMON = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_GATED_SHARED = {"num_experts": 8, "shared_expert_intermediate_size": 32, **_EXPERTS}
_MLA = {
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
    "attention_bias": True,
    **_EXPERTS,
}


@dataclass(frozen=True)
class Family:
    """A transformers class with the config fields that make it tiny."""

    model_class: str
    fields: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    with_images: dict[str, Any] | None = None


_IMAGES = {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_heads": 2,
    "out_hidden_size": 64,
    "num_position_embeddings": 16,
}
FAMILIES = {
    "llama": Family("LlamaForCausalLM", {"attention_bias": True, "mlp_bias": False}),
    "qwen2": Family("Qwen2ForCausalLM"),
    "qwen3": Family("Qwen3ForCausalLM", {"head_dim": 16, "attention_bias": True, "tie_word_embeddings": True}),
    "qwen3_moe": Family("Qwen3MoeForCausalLM", {"head_dim": 16, "num_experts": 8, **_EXPERTS}, seed=38),
    "qwen3_5": Family("Qwen3_5ForCausalLM", {"head_dim": 16, **_LINEAR}),
    "qwen3_5_moe": Family("Qwen3_5MoeForCausalLM", {"head_dim": 16, **_LINEAR, **_GATED_SHARED}, seed=42),
    "qwen3_next": Family("Qwen3NextForCausalLM", {"head_dim": 16, **_LINEAR, **_GATED_SHARED}, seed=14),
    "gpt_oss": Family(
        "GptOssForCausalLM",
        {"head_dim": 16, "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": 6},
        seed=22,
    ),
    "minimax_m2": Family(
        "MiniMaxM2ForCausalLM",
        {"head_dim": 16, "num_local_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 32},
        seed=27,
    ),
    "glm_moe_dsa": Family(
        "GlmMoeDsaForCausalLM",
        {
            **_MLA,
            "index_n_heads": 8,
            "index_head_dim": 16,
            "index_topk": 6,
            "indexer_types": ["full", "shared"],
        },
        seed=2,
    ),
    "glm4_moe": Family(
        "Glm4MoeForCausalLM",
        {
            "head_dim": 16,
            "attention_bias": True,
            "use_qk_norm": True,
            "n_routed_experts": 8,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "n_group": 2,
            "topk_group": 1,
            **_EXPERTS,
        },
        seed=25,
    ),
    "glm4_moe_lite": Family("Glm4MoeLiteForCausalLM", {**_MLA, "mlp_layer_types": ["dense", "sparse"]}, seed=45),
    "deepseek_v2": Family("DeepseekV2ForCausalLM", {**_MLA, "topk_method": "group_limited_greedy"}, seed=53),
    "deepseek_v2_lite": Family("DeepseekV2ForCausalLM", {**_MLA, "q_lora_rank": None}, seed=46),
    "deepseek_v3": Family("DeepseekV3ForCausalLM", _MLA, seed=45),
    "deepseek_v4": Family(
        "DeepseekV4ForCausalLM",
        {
            "num_key_value_heads": 1,
            "head_dim": 16,
            "partial_rotary_factor": 0.5,
            "q_lora_rank": 32,
            "o_groups": 4,
            "o_lora_rank": 8,
            "index_n_heads": 4,
            "index_head_dim": 16,
            "index_topk": 2,
            "sliding_window": 6,
            "hc_sinkhorn_iters": 4,
            "layer_types": ["heavily_compressed_attention", "compressed_sparse_attention"],
            "compress_rates": {"heavily_compressed_attention": 8, "compressed_sparse_attention": 4},
            "mlp_layer_types": ["hash_moe", "moe"],
            "n_routed_experts": 8,
            "n_shared_experts": 1,
            **_EXPERTS,
        },
        seed=33,
    ),
    "deepseek_v32": Family(
        "DeepseekV32ForCausalLM", {**_MLA, "index_n_heads": 8, "index_head_dim": 16, "index_topk": 6}, seed=36
    ),
}

# Checkpoints of models with images, of which the text is executed: it is one of the families above.
WITH_IMAGES = {
    "qwen3_5": Family("Qwen3_5ForConditionalGeneration", {"head_dim": 16, **_LINEAR}, with_images=_IMAGES),
    "qwen3_5_moe": Family(
        "Qwen3_5MoeForConditionalGeneration",
        {"head_dim": 16, **_LINEAR, **_GATED_SHARED},
        seed=42,
        with_images=_IMAGES,
    ),
}


def write_checkpoint(family: str, folder: str | Path, *, seed: int | None = None, **changes: Any) -> Path:
    """Write config.json and weights of a family to a folder; `changes` replace config fields.

    `qwen3_5+images`: the model with images of that family.
    """
    import torch
    import transformers

    name, _, images = family.partition("+")
    about = WITH_IMAGES[name] if images else FAMILIES[name]
    model_class = getattr(transformers, about.model_class)
    fields = {**_COMMON, **about.fields, **changes}
    if about.with_images is not None:
        fields = {"text_config": fields, "vision_config": about.with_images}
    config = model_class.config_class(**fields)
    model = model_class(config)
    with torch.no_grad():
        for name, tensor in {**dict(model.named_parameters()), **_routing_biases(model)}.items():
            # A generator of its own for every tensor: the weights depend on its name, not on how many come before.
            own_seed = zlib.crc32(f"{about.seed if seed is None else seed} {name}".encode())
            _fill(name, tensor, torch.Generator().manual_seed(own_seed))
    model.save_pretrained(folder)
    return Path(folder)


def _routing_biases(model: Any) -> dict[str, Any]:
    """What a checkpoint holds for its routers beside parameters: biases, and tables of experts by token."""
    names = ("e_score_correction_bias", "tid2eid")
    return {name: buffer for name, buffer in model.named_buffers() if name.endswith(names)}


_SELECTING = (
    "mlp.gate.weight",
    "mlp.router.weight",
    "indexer.wk.weight",
    "indexer.wq_b.weight",
    "indexer.q_b_proj.weight",
    "indexer.weights_proj.weight",
    "indexer.scorer.weights_proj.weight",
)


def _fill(name: str, tensor: Any, generator: Any) -> None:
    if name.endswith(_SELECTING):
        tensor.normal_(0, 0.4, generator=generator)  # wide scores: no two of them nearly equal
    elif name.endswith("tid2eid"):  # for every token different ones of eight experts
        first = tensor[:, :1].random_(8, generator=generator)
        tensor.copy_((first + 3 * tensor.new_tensor([range(tensor.shape[1])])) % 8)
    elif "embed_tokens" in name or "lm_head" in name:
        tensor.normal_(0, 0.06, generator=generator)
    elif tensor.ndim > 1:
        tensor.normal_(0, 0.12, generator=generator)  # the layers outweigh the embedding: generated tokens vary
    elif "bias" in name:
        tensor.normal_(0, 0.1, generator=generator)
    else:  # weights of norms; of those that add one to it, which start at 0, around that
        tensor.normal_(1.0 if tensor.any() else 0.0, 0.1, generator=generator)


if __name__ == "__main__":
    print(write_checkpoint(sys.argv[1], sys.argv[2]))
