"""MiniMax-M2 and M3: grouped-query attention; M3 keeps blocks of keys by an index and has dense first layers."""

from __future__ import annotations

from ..config_fields import attention, dense_layers, of_text
from ..config_json import ConfigJson
from . import Architecture, Fields


def _m2(config: ConfigJson) -> Fields:
    drafts = config.count("num_mtp_modules", 0) * config.count("mtp_transformer_layers", 1)
    return attention(config) | {
        "num_experts": config.size_by("num_local_experts", "num_experts"),
        "num_experts_per_tok": config.size("num_experts_per_tok"),
        "moe_intermediate_size": config.size("intermediate_size"),
        "shared_expert_intermediate_size": config.count("shared_intermediate_size", 0),
        "num_nextn_predict_layers": drafts if config.flag("use_mtp") else 0,
    }


def _m3(config: ConfigJson) -> Fields:
    fields = attention(config)
    dense, wide = dense_layers(config, fields["num_hidden_layers"]), config.size("dense_intermediate_size")
    return fields | {
        "num_experts": config.size_by("num_local_experts", "num_experts"),
        "num_experts_per_tok": config.size("num_experts_per_tok"),
        "moe_intermediate_size": config.size_by("intermediate_size", "moe_intermediate_size"),
        "shared_expert_intermediate_size": config.size("shared_intermediate_size"),
        "dense_layers": dense,
        **({"intermediate_size": wide} if dense else {}),
        "num_nextn_predict_layers": config.count("num_nextn_predict_layers", 0),
        **_index(config, fields["num_hidden_layers"]),
    }


def _index(config: ConfigJson, layers: int) -> Fields:
    """The index of blocks, in the words of the checkpoint or of transformers; none where no layer has it."""
    old = config.mapping("sparse_attention_config")
    kinds = config.kinds("layer_types", layers, ("full_attention", "minimax_m3_sparse"))
    if kinds is not None:
        own = [layer for layer, kind in enumerate(kinds) if kind == "minimax_m3_sparse"]
    else:
        flags = None if old is None else old.layers_by("sparse_attention_freq", layers)
        own = [layer for layer, flag in enumerate(flags or ()) if flag]

    def size(name: str, old_name: str) -> int:
        return old.size(old_name) if old is not None and old.has(old_name) else config.size(name)

    fields = {
        "index_head_dim": size("index_head_dim", "sparse_index_dim"),
        "index_n_heads": size("index_n_heads", "sparse_num_index_heads"),
        "index_topk": size("index_topk_blocks", "sparse_topk_blocks") * size("index_block_size", "sparse_block_size"),
        "index_layers": own,
    }
    return fields if own else {}


_M3 = {
    "dense_intermediate_size": 12288,
    "head_dim": 128,
    "hidden_size": 6144,
    "index_block_size": 128,
    "index_head_dim": 128,
    "index_n_heads": 4,
    "index_topk_blocks": 16,
    "intermediate_size": 3072,
    "num_attention_heads": 64,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 60,
    "num_key_value_heads": 4,
    "num_local_experts": 128,
    "shared_intermediate_size": 3072,
    "vocab_size": 200064,
}
_M3_APART = ("n_shared_experts", "first_k_dense_replace", "moe_intermediate_size")  # said again by what is read

ARCHITECTURES = (
    Architecture(
        "MiniMaxM2ForCausalLM",
        _m2,
        "minimax_m2",
        {
            "head_dim": 128,
            "hidden_size": 3072,
            "intermediate_size": 1536,
            "num_attention_heads": 48,
            "num_experts_per_tok": 8,
            "num_hidden_layers": 62,
            "num_key_value_heads": 8,
            "num_local_experts": 256,
            "vocab_size": 200064,
        },
    ),
    Architecture("MiniMaxM3ForCausalLM", of_text(_m3), "minimax_m3_vl", _M3, _M3_APART),
    Architecture("MiniMaxM3SparseForConditionalGeneration", of_text(_m3), "minimax_m3_vl", _M3, _M3_APART),
)
