"""A plugin for SGLang: the torch code of experts leaves out those of other ranks, which have the number -1.

That code wants different local experts in every row, so a stranger is replaced by one that the row has not chosen, with
weight 0.
"""

from typing import Any


def register() -> None:
    """Called by SGLang in each of its processes."""
    import torch
    from sglang.srt.layers.moe import fused_moe_native

    run = fused_moe_native.moe_forward_native

    def of_this_rank(layer: Any, x: Any, chosen: Any, config: Any) -> Any:
        away = chosen.topk_ids < 0
        local, places = layer.w13_weight.shape[0], chosen.topk_ids.shape[1]
        if not away.any():
            return run(layer, x, chosen, config)
        assert local >= 2 * places - 1, "too few experts on a rank for this stand-in"
        taken = torch.zeros(len(away), local + 1, dtype=torch.int8)
        taken.scatter_(1, chosen.topk_ids.long().where(~away, local), 1)
        others = taken[:, :local].argsort(dim=1, stable=True)[:, :places].to(chosen.topk_ids.dtype)
        here = chosen._replace(
            topk_ids=chosen.topk_ids.where(~away, others), topk_weights=chosen.topk_weights.masked_fill(away, 0.0)
        )
        return run(layer, x, here, config)

    fused_moe_native.moe_forward_native = of_this_rank
