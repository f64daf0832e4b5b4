"""Tiny Qwen3 and DeepSeek-V3: odd where sharding is hard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import transformers

from commplan.planner.strategy.file import ModelStamp

VOCAB_SIZE = 131  # no number of ranks divides it


@dataclass(frozen=True)
class TinyModel:
    """A transformers architecture with the config fields that make it tiny."""

    architecture: str
    num_hidden_layers: int
    hidden_size: int
    fields: dict[str, Any]
    latent_width: int = 0
    moe_layers: frozenset[int] = field(default_factory=frozenset)

    def config(self, **changes: Any) -> Any:
        """The transformers config."""
        own = {"num_hidden_layers": self.num_hidden_layers, "hidden_size": self.hidden_size, "vocab_size": VOCAB_SIZE}
        return getattr(transformers, self.architecture).config_class(**{**own, **self.fields, **changes})

    @property
    def stamp(self) -> ModelStamp:
        """The model as a strategy file names it."""
        return ModelStamp(
            name="tiny",
            role="target",
            architecture=self.architecture,
            num_hidden_layers=self.num_hidden_layers,
            hidden_size=self.hidden_size,
            latent_width=self.latent_width,
            moe_layers=self.moe_layers,
            fingerprint="0" * 16,
        )


# 2 KV heads on 4 ranks are replicated; every attention projection has a bias.
QWEN3 = TinyModel(
    "Qwen3ForCausalLM",
    num_hidden_layers=2,
    hidden_size=80,
    fields={
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "attention_bias": True,
    },
)
# A dense layer, then two with experts, which run as grouped matrix products: their rows are multiples of 16 bytes.
DEEPSEEK_V3 = TinyModel(
    "DeepseekV3ForCausalLM",
    num_hidden_layers=3,
    hidden_size=80,
    latent_width=24 + 16 + 8,
    moe_layers=frozenset({1, 2}),
    fields={
        "intermediate_size": 96,
        "moe_intermediate_size": 32,
        "first_k_dense_replace": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "q_lora_rank": 24,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "attention_bias": True,
    },
)
MODELS = {"qwen3": QWEN3, "deepseek_v3": DEEPSEEK_V3}
