"""INT8-compressed all-reduce, per token symmetric.

gather    all-gather of values and scales, local sum: (N-1)*M bytes in, one quantisation
two_shot  all-to-all, sum of the shard a rank owns, requantise, all-gather: 2*(N-1)/N*M bytes in, two quantisations
"""

from ..strategy.op_kinds import INT8_ALL_REDUCE
from ..strategy.ops import NONE, SLICE, Op
from . import Strategy, offers

_SUMS = (
    NONE,
    *(
        Op(INT8_ALL_REDUCE.name, algorithm=algorithm, residual=residual)
        for algorithm in INT8_ALL_REDUCE.algorithms
        for residual in (None, "gather")
    ),
)

STRATEGY = Strategy(
    name="int8_all_reduce",
    summary="INT8-compressed all-reduce",
    colour="#d9822b",
    offers=offers(
        embed_out=(NONE, Op("all_reduce")),
        attn_in=(NONE, SLICE, Op("all_gather")),
        attn_out=_SUMS,
        mlp_in=(NONE, SLICE, Op("all_gather")),
        mlp_out=_SUMS,
        head_in=(NONE, Op("all_gather")),
    ),
)
