"""Whose weights SGLang reads behind each boundary, for sums that ask the cache for some of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

_ATTENTIONS = ("self_attn.qkv_proj", "self_attn.fused_qkv_a_proj_with_mqa")
_MLPS = ("mlp.gate_up_proj", "mlp.shared_experts.gate_up_proj")
"""Dense ones; of experts, the shared ones, since the tokens choose the others, and the router's weight is small."""


def next_linears(model: Any) -> dict[tuple[int, str], Any]:
    """(layer, boundary) to the linear behind it, in a <Model>ForCausalLM of SGLang's; no entry where none is known."""
    return dict(_found(model))


def _found(model: Any) -> Iterator[tuple[tuple[int, str], Any]]:
    layers = list(getattr(getattr(model, "model", None), "layers", ()))
    for number, layer in enumerate(layers):
        behind = layers[number + 1] if number + 1 < len(layers) else None
        following = _linear(model, ("lm_head",)) if behind is None else _linear(behind, _ATTENTIONS)
        for boundary, linear in (("attn_out", _linear(layer, _MLPS)), ("mlp_out", following)):
            if linear is not None:
                yield (number, boundary), linear


def _linear(module: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        found: Any = module
        for part in name.split("."):
            found = getattr(found, part, None)
        if isinstance(getattr(found, "weight", None), Tensor):
            return found
    return None


__all__ = ["next_linears"]
