"""Seeded random checkpoints, small enough to load in a moment, of the families that a plan runs in SGLang.

    python benchmarks/servers/checkpoints.py qwen3 build/servers/qwen3

Weights are drawn so that activations keep their size from layer to layer: tokens and logprobs then depend on every
layer's sums, and not on the embedding alone.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

VOCABULARY = 2048
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 4096,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "attention_bias": False,
    "tie_word_embeddings": False,
}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 256, "norm_topk_prob": True}
_LATENT = {
    "num_key_value_heads": 8,
    "q_lora_rank": 256,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 16,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 4,
    "topk_group": 2,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 1024,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen3": ("Qwen3ForCausalLM", {}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {"num_experts": 16, **_EXPERTS}),
    "deepseek_v3": ("DeepseekV3ForCausalLM", {**_EXPERTS, **_LATENT}),
}
ROUTED = {family for family, (_, fields) in FAMILIES.items() if "num_experts_per_tok" in fields}
"""Families whose tokens go to experts of their own."""
# Fields that SGLang reads and transformers 5 leaves out when it writes a config.json.
_ADDED = {"deepseek_v3": {"moe_layer_freq": 1, "scoring_func": "sigmoid", "topk_method": "noaux_tc"}}


def write_checkpoint(family: str, folder: Path, dtype: str = "bfloat16") -> Path:
    """config.json and weights; the same bytes on every machine."""
    import torch
    import transformers

    name, fields = FAMILIES[family]
    model_class = getattr(transformers, name)
    model = model_class(model_class.config_class(**{**_COMMON, **fields, "dtype": dtype})).to(getattr(torch, dtype))
    biases = {n: b for n, b in model.named_buffers() if n.endswith("e_score_correction_bias")}
    with torch.no_grad():
        for name, tensor in {**dict(model.named_parameters()), **biases}.items():
            tensor.copy_(_values(name, tensor, torch.Generator().manual_seed(zlib.crc32(name.encode()))))
    model.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | _ADDED.get(family, {}), indent=1) + "\n")
    return folder


def _values(name: str, tensor: Any, generator: Any) -> Any:
    import torch

    drawn = torch.randn(tensor.shape, generator=generator)
    if tensor.ndim == 1:  # norms, and what is added to an expert's score
        return 0.05 * drawn if "bias" in name else 1.0 + 0.1 * drawn
    if "embed_tokens" in name:
        return drawn
    return drawn * (2.0 if "lm_head" in name else 1.0) / tensor.shape[-1] ** 0.5


if __name__ == "__main__":
    print(write_checkpoint(sys.argv[1], Path(sys.argv[2])))
