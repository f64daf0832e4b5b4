"""MixedComm for attention TP x DP: the sum over one axis and the gather or scatter over the other in one kernel.

With one rank per DP group there is no partial at attn_out, and the pair is an all-gather and a reduce-scatter over tp
by the same kernels.
"""

from dataclasses import dataclass

from ..strategy.layout import Parallelism
from ..strategy.ops import FUSED, NONE, SLICE, Op
from . import Offer, Strategy, offers


@dataclass(frozen=True)
class _MixedComm(Strategy):
    def needs(self, parallelism: Parallelism) -> str | None:
        """MixedComm needs attention DP."""
        if parallelism.attn_dp == 1:
            return "MixedComm fuses the collectives of attention TP x DP, and attn_dp is 1: there is no pair to fuse"
        return super().needs(parallelism)


STRATEGY = _MixedComm(
    name="mixed_comm",
    summary="fused collectives of attention TP x DP",
    colour="#1b9a7a",
    offers=offers(
        embed_out=(NONE, Op("all_reduce")),
        attn_in=(NONE, SLICE, FUSED),
        attn_out=(
            NONE,
            Op("all_reduce_all_gather", residual="fold"),
            Op("all_reduce_all_gather", residual="gather"),
        ),
        mlp_in=(NONE, SLICE, FUSED, Offer(Op("all_gather"), peer_to_peer=True)),
        mlp_out=(
            NONE,
            Op("reduce_scatter_all_reduce"),
            Op("reduce_scatter_all_reduce", residual="fold"),
            Op("reduce_scatter_all_reduce", residual="gather"),
            Offer(Op("reduce_scatter"), peer_to_peer=True),
        ),
        head_in=(NONE, Op("all_gather")),
    ),
)
