"""Quantised all-reduce in the wire formats that kernels of servers and libraries send, scaled by groups of columns.

Each format is offered as some kernel sends it; which may travel at all is the deployment's `numerics.wire_formats`.
"""

from ..strategy.op_kinds import QUANTIZED_ALL_REDUCE
from ..strategy.ops import NONE, SLICE, Op
from ..strategy.words import ScaleGroup
from . import Strategy, offers

_FORMATS: tuple[tuple[str, ScaleGroup], ...] = (
    ("int8", "32"),
    ("fp8_e4m3", "256"),
    ("fp8_e4m3", "token"),
    ("fp8_e4m3", "32"),
    ("int6", "32"),
    ("int4", "32"),
)

_SUMS = (
    NONE,
    *(
        Op(QUANTIZED_ALL_REDUCE.name, algorithm="two_shot", residual=residual, wire_name=wire, scale_group=group)
        for wire, group in _FORMATS
        for residual in (None, "gather")
    ),
)

STRATEGY = Strategy(
    name="quantized_all_reduce",
    summary="all-reduce in a wire format of its own",
    colour="#b8562b",
    offers=offers(
        embed_out=(NONE, Op("all_reduce")),
        attn_in=(NONE, SLICE, Op("all_gather")),
        attn_out=_SUMS,
        mlp_in=(NONE, SLICE, Op("all_gather")),
        mlp_out=_SUMS,
        head_in=(NONE, Op("all_gather")),
    ),
)
