"""Plain all-reduce: every partial sum is completed on every rank that needs the rows."""

from ..strategy.ops import NONE, SLICE, Op
from . import Strategy, offers

_SUMS = (
    NONE,
    Op("all_reduce"),
    Op("all_reduce", residual="fold"),
    Op("all_reduce", residual="gather"),
)
_ZERO_BUFFER = (  # attention DP: the DP group's rows in a buffer of all rows, summed over tp
    Op("all_reduce", group="tp", residual="fold"),
    Op("all_reduce", group="tp", residual="gather"),
)

STRATEGY = Strategy(
    name="all_reduce",
    summary="plain all-reduce",
    colour="#8a929e",
    offers=offers(
        embed_out=(NONE, Op("all_reduce")),
        attn_in=(NONE, SLICE, Op("all_gather")),
        attn_out=(*_SUMS, *_ZERO_BUFFER),
        mlp_in=(NONE, SLICE, Op("all_gather")),
        mlp_out=_SUMS,
        head_in=(NONE, Op("all_gather")),
    ),
)
