"""One file per family of architectures: which names it has on Hugging Face, and how its config.json becomes ours.

A file defines ARCHITECTURES, a tuple of Architecture; adding a family is adding a file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ..config_json import ConfigJson

Fields = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """A Hugging Face architecture name and the reading of its config.json.

    read        `read(config)` returns the fields of a commplan model
    model_type  transformers' name of the configuration class whose defaults hold; None: it has no such class
    defaults    what that class takes for fields left out, of those that are read
    apart       fields that others are read by and this family does not go by, as a look at its modules shows
    refused     why no layer of ours describes it, and the way out; such an architecture is not read
    """

    name: str
    read: Callable[[ConfigJson], Fields]
    model_type: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    apart: tuple[str, ...] = ()
    refused: str | None = None

    def config(self, data: dict[str, Any], file: str | None = None) -> ConfigJson:
        """A config.json of this architecture, with its defaults."""
        return ConfigJson(data, file, defaults=self.defaults)


@cache
def every() -> dict[str, Architecture]:
    """All architectures by name, those that are refused too."""
    found: dict[str, Architecture] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda m: m.name):
        for architecture in importlib.import_module(f".{module.name}", __name__).ARCHITECTURES:
            found[architecture.name] = architecture
    return found


@cache
def known() -> dict[str, Architecture]:
    """All architectures that are read, by name."""
    return {name: architecture for name, architecture in every().items() if architecture.refused is None}


STRUCTURAL = frozenset(
    [
        "add_cross_attention",
        "altup_num_inputs",
        "attention_chunk_size",
        "attn_output_gate",
        "attn_res_block_size",
        "compress_ratios",
        "cross_attention_layers",
        "decoder_sparse_step",
        "dense_intermediate_size",
        "enable_moe_block",
        "first_k_dense_replace",
        "global_head_dim",
        "hc_mult",
        "hidden_size_per_layer_input",
        "hybrid_layer_pattern",
        "hybrid_override_pattern",
        "index_head_dim",
        "index_n_heads",
        "index_topk",
        "index_topk_freq",
        "index_topk_pattern",
        "indexer_types",
        "interleave_moe_layer_step",
        "intermediate_size_mlp",
        "is_encoder_decoder",
        "kv_lora_rank",
        "layer_types",
        "laurel_rank",
        "linear_attn_config",
        "linear_num_key_heads",
        "linear_num_value_heads",
        "mamba_num_heads",
        "mla_use_output_gate",
        "mlp_layer_types",
        "mlp_only_layers",
        "moe_intermediate_size",
        "moe_layer_freq",
        "moe_layers",
        "moe_num_experts",
        "moe_shared_expert_intermediate_size",
        "n_routed_experts",
        "n_shared_experts",
        "num_experts",
        "num_global_key_value_heads",
        "num_kv_shared_layers",
        "num_local_experts",
        "num_shared_experts",
        "o_groups",
        "o_lora_rank",
        "parallel_attn",
        "q_lora_rank",
        "routed_expert_hidden_size",
        "shared_expert_intermediate_size",
        "shared_intermediate_size",
        "sliding_window",
        "sparse_attention_config",
        "ssm_state_size",
        "swa_head_dim",
        "swa_num_attention_heads",
        "swa_num_key_value_heads",
        "swa_v_head_dim",
        "use_double_wide_mlp",
        "use_parallel_residual",
        "v_head_dim",
    ]
)
"""Fields that change what a model computes or sends, in whichever family: one that is there, and that the reading of
its architecture does not know, is refused rather than dropped."""
