"""Quantised all-reduce in the wire formats that kernels of servers and libraries send, scaled by groups of columns.

Each format is offered as some kernel sends it; which may travel at all is the deployment's `numerics.wire_formats`.
Plain INT4 by our own kernels is not among them: it raises the perplexity of a trained model by a third (SmolLM2-135M,
three ranks, all sums), so it is a bound to compare with, and what_if tells how far it would bring one.
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

# Around the library, and by kernels of our own: both algorithms, because a pair has all in one gather.
_GROUPED: tuple[tuple[str, ScaleGroup], ...] = (
    ("int8", "64"),
    ("int6", "64"),
    ("fp8_e4m3", "64"),
    ("int4_spikes", "64"),
    # By our own kernels the fewest bytes with a scale that a large channel spoils for its neighbours alone.
    ("int8", "128"),
    ("fp8_e4m3", "128"),
)

_SUMS = (
    NONE,
    *(
        Op(QUANTIZED_ALL_REDUCE.name, algorithm="two_shot", residual=residual, wire_name=wire, scale_group=group)
        for wire, group in _FORMATS
        for residual in (None, "gather")
    ),
    *(
        Op(QUANTIZED_ALL_REDUCE.name, algorithm=algorithm, wire_name=wire, scale_group=group)
        for wire, group in _GROUPED
        for algorithm in QUANTIZED_ALL_REDUCE.algorithms
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
