"""Whether the norms of a model are what the kernels that stand for them compute."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from commplan.planner.strategy.file import StrategyFile

from ..errors import RefusedError
from ..kernels.peer_impls import norm_uses, without_norm
from ..kernels.rms_norm import rms_norm


def mark_norms(model: Any, dtype: torch.dtype) -> None:
    """Tell the backends which norms of the streams their kernels do not compute: those go by the model's module."""
    norms = [(layer.input_layernorm, layer.post_attention_layernorm) for layer in model.model.layers]
    for norm in [*(norm for pair in norms for norm in pair), model.model.norm.norm]:
        norm._commplan_plain = norm.weight.dtype == dtype and _not_plain(norm, norm.weight.shape[0]) is None


def check_norms(model: Any, file: StrategyFile) -> None:
    """Can the kernels of a plan stand for the norms behind their sums? Raises RefusedError."""
    behind = {(use.layer, use.boundary): use for use in norm_uses(file)}
    layers = model.model.layers
    for (layer, boundary), use in behind.items():
        assert layer is not None
        if boundary == "attn_out":
            name, norm = f"layers.{layer}.post_attention_layernorm", layers[layer].post_attention_layernorm
        elif layer + 1 < len(layers):
            name, norm = f"layers.{layer + 1}.input_layernorm", layers[layer + 1].input_layernorm
        else:
            name, norm = "norm", model.model.norm.norm
        reason = _not_plain(norm, file.model.hidden_size)
        if reason is not None:
            raise RefusedError(
                f"its kernel norms by weight and epsilon alone, and {name} of this model ({type(norm).__name__}) "
                f"{reason}; leave `impl` out, or take {without_norm(use.op.impl)}",
                field=use.where,
                value=use.op.impl,
            )


def _not_plain(norm: nn.Module, width: int) -> str | None:
    """Why an RMSNorm kernel cannot stand for this module, or None.

    What it computes is looked at too: an RMSNorm that adds one to its weight has the same attributes.
    """
    weight, eps = getattr(norm, "weight", None), getattr(norm, "variance_epsilon", None)
    if not isinstance(weight, Tensor) or weight.shape != (width,) or not isinstance(eps, float):
        return f"has no weight of {width} elements with a variance_epsilon"
    return None if _computes(norm, weight.dtype, width, eps) else "computes something else than weight * x / rms(x)"


def _computes(norm: nn.Module, dtype: torch.dtype, width: int, eps: float) -> bool:
    """On the host, with weights of ours: what the module's own hold, and where, is of no account."""
    with torch.no_grad():
        ramp = torch.linspace(-2.0, 3.0, width, device="cpu")
        probe, weight_H = torch.stack([ramp, ramp.flip(0)]).to(dtype), torch.linspace(0.5, 2.0, width, device="cpu")
        weight_H = weight_H.to(dtype)
        found: Tensor = torch.func.functional_call(norm, {"weight": weight_H}, (probe,))
        wanted = rms_norm(probe, weight_H, eps)
    loose = 4 * torch.finfo(dtype).eps
    return found.shape == wanted.shape and torch.allclose(found.float(), wanted.float(), rtol=loose, atol=loose)
