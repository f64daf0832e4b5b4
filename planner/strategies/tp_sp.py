"""TP-SP scatter: reduce-scatter, norm on the shard, all-gather; with MLA the gather may wait for the latents.

Its late-gather form keeps a plain all-reduce at attn_out and folds the sharded residual into it.
"""

from ..strategy.ops import NONE, SLICE, Op
from . import Strategy, offers

_TWO_STEPS = tuple(Op("reduce_scatter_all_gather", residual=residual) for residual in (None, "fold", "gather"))

STRATEGY = Strategy(
    name="tp_sp",
    summary="TP-SP scatter: reduce-scatter, sharded norm, all-gather",
    colour="#2f6fd0",
    offers=offers(
        embed_out=(NONE, Op("reduce_scatter")),
        attn_in=(NONE, SLICE, Op("all_gather"), Op("latent_all_gather")),
        attn_out=(
            NONE,
            Op("reduce_scatter"),
            Op("all_reduce", residual="fold"),
            Op("all_reduce", residual="gather"),
            *_TWO_STEPS,
        ),
        mlp_in=(NONE, SLICE, Op("all_gather")),
        mlp_out=(NONE, Op("reduce_scatter"), *_TWO_STEPS),
        head_in=(NONE, Op("all_gather")),
    ),
)
