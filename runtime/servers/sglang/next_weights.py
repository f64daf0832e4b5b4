"""The weights that SGLang reads first behind each boundary, for sums that ask the cache for some of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

_ATTENTIONS = ("self_attn.qkv_proj", "self_attn.fused_qkv_a_proj_with_mqa")
_MLPS = ("mlp.gate_up_proj", "mlp.shared_experts.gate_up_proj")
"""Dense ones; of experts, the shared ones, since the tokens choose the others."""


def next_weights(model: Any) -> dict[tuple[int, str], Tensor]:
    """(layer, boundary) to the weight of the GEMM behind it, in a <Model>ForCausalLM of SGLang's; no other entry."""
    return dict(_found(model))


def _found(model: Any) -> Iterator[tuple[tuple[int, str], Tensor]]:
    layers = list(getattr(getattr(model, "model", None), "layers", ()))
    for number, layer in enumerate(layers):
        behind = layers[number + 1] if number + 1 < len(layers) else None
        following = _weight(model, ("lm_head",)) if behind is None else _weight(behind, _ATTENTIONS)
        for boundary, weight in (("attn_out", _weight(layer, _MLPS)), ("mlp_out", following)):
            if weight is not None:
                yield (number, boundary), weight


def _weight(module: Any, names: tuple[str, ...]) -> Tensor | None:
    for name in names:
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part, None)
        weight = getattr(found, "weight", None)
        if isinstance(weight, Tensor):
            return weight
    return None


__all__ = ["next_weights"]
