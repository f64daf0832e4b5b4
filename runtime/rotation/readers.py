"""Which tensors of a checkpoint meet the residual stream, and along which axis; which checkpoints cannot be rotated.

Every tensor has to be known: one that is not might read or write the stream, and a rotation would spoil it silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import RefusedError

MARK = "commplan_rotation"
"""The field of config.json that says how a checkpoint was rotated."""
EMBEDDING, HEAD, LAST_NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
FIRST_NORM, SECOND_NORM = "input_layernorm", "post_attention_layernorm"


@dataclass(frozen=True)
class Family:
    """How models of one type are spelled where they differ.

    one_plus           their norms add one to their weight
    experts_as_inputs  experts that lie in one tensor have their inputs before their outputs
    """

    one_plus: bool = False
    experts_as_inputs: bool = False


FAMILIES = (
    dict.fromkeys(("llama", "mistral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"), Family())
    | dict.fromkeys(("deepseek_v2", "deepseek_v3", "deepseek_v32"), Family())
    | dict.fromkeys(("glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "minimax_m2"), Family())
    | dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), Family(one_plus=True))
    | {"gpt_oss": Family(experts_as_inputs=True)}
)
"""By model type: all that this module knows how to rotate."""

_LAYER_NORM = "its LayerNorm takes the mean off every row, and a rotated row has another mean"
_NORMED_SUMS = (
    "it norms sums before they join the stream, and the weights of such a norm cannot be folded into a reader"
)
_REASONS = (
    dict.fromkeys(
        ("gpt2", "gptj", "gpt_neo", "gpt_neox", "opt", "bloom", "falcon", "mpt", "phi", "stablelm", "starcoder2"),
        _LAYER_NORM,
    )
    | dict.fromkeys(("cohere", "cohere2"), _LAYER_NORM)
    | dict.fromkeys(("gemma2", "gemma3_text", "glm4", "olmo2", "olmo3", "exaone4"), _NORMED_SUMS)
    | {
        "deepseek_v4": "its residual stream is several, and what mixes them (hyper-connections) is not folded here",
        "gemma": "servers take its head from the embedding, whatever config.json says, and a rotated head is its own",
    }
)
_IMAGES = "images enter the stream beside the embedding, and what encodes them is not rotated; take a text model"


def check_config(config: Mapping[str, Any]) -> Family:
    """The family of a checkpoint that can be rotated by its config.json; raises RefusedError with the reason."""
    if config.get(MARK) is not None:
        raise RefusedError("is rotated already; take the checkpoint that it was made from", field=MARK)
    if any(isinstance(config.get(section), dict) for section in ("text_config", "vision_config", "audio_config")):
        raise RefusedError(_IMAGES, field="model_type", value=config.get("model_type"))
    if config.get("quantization_config") is not None:
        reason = "quantised weights cannot be rotated: their scales are of the channels as they are; take one in bf16"
        raise RefusedError(reason, field="quantization_config")
    kind = config.get("model_type")
    if isinstance(kind, str) and kind in FAMILIES:
        return FAMILIES[kind]
    accepted = f"accepted: {', '.join(FAMILIES)}"
    reason = (
        _REASONS.get(kind, "how its layers meet the stream is not known") if isinstance(kind, str) else "is missing"
    )
    raise RefusedError(f"{reason}; {accepted}", field="model_type", value=kind)


@dataclass(frozen=True)
class Place:
    """How a tensor meets the stream.

    axis  along which its channels lie; None: it does not meet the stream, and stays as it is
    norm  the norm between them, whose weight is folded in
    ones  it is the weight of such a norm
    """

    axis: int | None = None
    norm: str | None = None
    ones: bool = False


_KEPT = Place()
_READS_FIRST = re.compile(
    r"self_attn\.(q_proj|k_proj|v_proj|q_a_proj|kv_a_proj_with_mqa|indexer\.(wk|weights_proj))\.weight"
    r"|linear_attn\.in_proj_(qkvz|qkv|ba|z|b|a)\.weight"
)
_MLP = r"(mlp|mlp\.shared_experts?|mlp\.experts\.\d+|block_sparse_moe|block_sparse_moe\.experts\.\d+)"
_READS_SECOND = re.compile(rf"{_MLP}\.(gate_proj|up_proj|w1|w3|gate|router|shared_expert_gate)\.weight")
_WRITES = re.compile(rf"(self_attn\.o_proj|linear_attn\.out_proj|{_MLP}\.(down_proj|w2))\.(weight|bias)")
_KEEPS = re.compile(
    r"self_attn\.(q_proj|k_proj|v_proj|q_a_proj|kv_a_proj_with_mqa)\.bias"
    r"|self_attn\.(q_norm|k_norm|q_a_layernorm|kv_a_layernorm|q_b_proj|kv_b_proj|indexer\.(wq_b|k_norm))\.(weight|bias)"
    r"|self_attn\.(sinks|rotary_emb\.inv_freq)"
    r"|linear_attn\.(A_log|dt_bias|norm\.weight|conv1d\.(weight|bias))"
    rf"|{_MLP}\.(gate_proj|up_proj|router)\.bias"
    r"|(mlp\.gate|block_sparse_moe)\.e_score_correction_bias|mlp\.experts\.gate_up_proj_bias"
)
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


def place_of(name: str, family: Family, num_layers: int) -> Place | None:
    """How the tensor of a name meets the stream; None where that is not known."""
    if name == EMBEDDING:
        return Place(axis=1)
    if name == HEAD:
        return Place(axis=1, norm=LAST_NORM)
    if name == LAST_NORM:
        return Place(ones=True)
    match = _LAYER.fullmatch(name)
    if match is None or int(match[1]) >= num_layers:
        return None
    return _place_in_layer(match[2], f"model.layers.{match[1]}.", family)


def is_draft(name: str, num_layers: int) -> bool:
    """A tensor of the layers that draft for the model (MTP, NextN)."""
    match = _LAYER.fullmatch(name)
    return name.startswith("mtp.") or (match is not None and int(match[1]) >= num_layers)


def _place_in_layer(rest: str, layer: str, family: Family) -> Place | None:
    second = f"{layer}{SECOND_NORM}.weight"
    if rest in (f"{FIRST_NORM}.weight", f"{SECOND_NORM}.weight"):
        return Place(ones=True)
    if _READS_FIRST.fullmatch(rest):
        return Place(axis=1, norm=f"{layer}{FIRST_NORM}.weight")
    if _READS_SECOND.fullmatch(rest):
        return Place(axis=1, norm=second)
    if _WRITES.fullmatch(rest):
        return Place(axis=0)
    if _KEEPS.fullmatch(rest):
        return _KEPT
    early, late = (1, 2) if family.experts_as_inputs else (2, 1)
    return {
        "mlp.experts.gate_up_proj": Place(axis=early, norm=second),
        "mlp.experts.down_proj": Place(axis=late),
        "mlp.experts.down_proj_bias": Place(axis=1),
    }.get(rest)
