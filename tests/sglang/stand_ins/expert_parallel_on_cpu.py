"""A plugin for SGLang: the torch code of experts leaves out those of other ranks, which have the number -1."""

from typing import Any


def register() -> None:
    """Called by SGLang in each of its processes."""
    from sglang.srt.layers.moe import fused_moe_native

    run = fused_moe_native.moe_forward_native

    def of_this_rank(layer: Any, x: Any, chosen: Any, config: Any) -> Any:
        away = chosen.topk_ids < 0
        here = chosen._replace(
            topk_ids=chosen.topk_ids.masked_fill(away, 0), topk_weights=chosen.topk_weights.masked_fill(away, 0.0)
        )
        return run(layer, x, here, config)

    fused_moe_native.moe_forward_native = of_this_rank
