"""The record of every op: all that is known of it stands here, and everybody else reads it.

A new wire format of a quantised all-reduce is a `Wire`, its errors, and one call of `quantized_all_reduce` below; or,
with errors by columns of a scale, an entry of wire_formats.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from .op_record import Collective, OpKind, OwnKernel, Pass, Rows, Send, Way, Workspace
from .wire import Error, Wire
from .wire_formats import INT8, INT8_SLOPES, WIRE_ERRORS, WIRES

_OUT = ("embed_out", "attn_out", "mlp_out")
_LAYER_OUT = ("attn_out", "mlp_out")
_IN = ("attn_in", "mlp_in", "head_in")

# ---- collectives of libraries ----------------------------------------------------------------------------------------

REDUCE_SCATTER = Collective("reduce_scatter")
ALL_GATHER = Collective("all_gather", takes_shards=True)
ALL_REDUCE = Collective("all_reduce", halves=(REDUCE_SCATTER.name, ALL_GATHER.name))
ALL_TO_ALL = Collective("all_to_all")
COLLECTIVES = {each.name: each for each in (ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER, ALL_TO_ALL)}

# ---- errors of INT8 per token ----------------------------------------------------------------------------------------

# Float64 reference, normal rows of 5120, independent partials; the script prints these figures. With independent
# partials the errors of N ranks add up like the partials do, so the gather's error hardly depends on N; two_shot
# quantises the sum once more. Rows with outliers do worse, up to the bound amax/127/sqrt(12) per rank: a sensitivity
# file carries what is known of a model.
_INT8_ERRORS = {
    "gather": Error(
        {2: 0.0088, 4: 0.0088, 8: 0.0088, 16: 0.0088}, "benchmarks/planner/int8_error.py", INT8_SLOPES["gather"]
    ),
    "two_shot": Error(
        {2: 0.0124, 4: 0.0124, 8: 0.0124, 16: 0.0124}, "benchmarks/planner/int8_error.py", INT8_SLOPES["two_shot"]
    ),
}


def quantized_all_reduce(
    name: str,
    wire: Wire,
    errors: Mapping[str, Error],
    colour: str,
    summary: str,
    kernel: OwnKernel | None = None,
) -> OpKind:
    """The record of an all-reduce that travels in a wire format, by each algorithm of which the error is known.

    gather    every rank gets all values and scales and sums them: N messages in, one quantisation
    two_shot  a rank sums its shard, quantises the sum, everybody gathers: two messages in, two quantisations
    """
    return OpKind(
        name,
        _LAYER_OUT,
        Rows.SUMMED,
        summary,
        colour,
        numerics="quantized",
        parameters=("algorithm", "pieces", "group", "residual", "impl"),
        ways={algorithm: _QUANTIZED[algorithm](error) for algorithm, error in errors.items()},
        wire=wire,
        kernel=kernel,
    )


def _gather(error: Error | None) -> Way:
    return Way(
        steps=(
            Pass("quantize"),
            Send(ALL_GATHER, part="values", whole=True),
            Send(ALL_GATHER, part="scales", whole=True),
            Pass("dequantize_sum", copies=True),
        ),
        workspace=Workspace(values=1, values_per_rank=1, fp32_per_rank=1),
        peers="message",
        error=error,
    )


def _two_shot(error: Error | None) -> Way:
    return Way(
        steps=(
            Pass("quantize", "padded"),
            Send(ALL_TO_ALL, "padded", part="values"),
            Send(ALL_TO_ALL, "padded", part="scales"),
            Pass("reduce_shard", "padded", copies=True),
            Send(ALL_GATHER, "padded", part="values"),
            Send(ALL_GATHER, "padded", part="scales"),
            Pass("dequantize", "padded"),
        ),
        workspace=Workspace(values=3, fp32=1),
        error=error,
    )


_QUANTIZED = {"gather": _gather, "two_shot": _two_shot}

# ---- fused peer-to-peer kernels --------------------------------------------------------------------------------------
# One-shot reads every partial it needs from its owner; two-shot sums a part of the rows first and reads the sums, which
# takes another round.


def _gather_sum(n: int, a: int, everything: float, mine: float) -> tuple[tuple[int, float], ...]:
    return (2, a * everything - mine), (3, (a - 1) / a * mine + (n - 1) / n * everything)


def _scatter_sum(n: int, a: int, everything: float, mine: float) -> tuple[tuple[int, float], ...]:
    return (2, (n - 1) * mine), (3, (n - 1) / n * everything + (a - 1) / a * mine)


def _shards(n: int, a: int, everything: float, mine: float) -> tuple[tuple[int, float], ...]:  # noqa: ARG001
    return ((2, (n - 1) / n * everything),)


# A kernel of commplan's own sums what all have sent, or a part of the rows first, and sends the sums. Neither changes
# what comes out: the order of the sum is that of ranks.
_OWN_PAIRS = {
    "one_shot": Way((Send(ALL_REDUCE),), peers="message", in_one_launch=True),
    "two_shot": Way((Send(ALL_REDUCE),), peers="shards"),
}
# Or copy engines push the rows to all, in pieces, while the GEMM that makes them goes on; in pieces too, so that it may
# round otherwise.
PUSHED_INNER = 4096
"""Inner columns of the GEMM behind which such a sum is measured. A shorter one hides less of it."""
_OWN_SUMS = {**_OWN_PAIRS, "pushed": Way((Send(ALL_REDUCE),), peers="pushed")}

# Or whole messages travel as they are, and a kernel of every rank sums them. Few rows through the host's memory: by the
# kernel in one shot, whose rows land there.
_WHOLE_ROWS = {
    "gather": Way(
        (Send(ALL_GATHER, whole=True), Pass("sum", copies=True)), Workspace(values_per_rank=1), peers="message"
    ),
    "one_shot": _OWN_SUMS["one_shot"],
}

# The same of a pair, on the rows of a DP group.
_GATHER_SUM = Way(
    (Send(ALL_REDUCE, "dp_local", over="attn_tp"), Send(ALL_GATHER, "padded", over="attn_dp")), peers="dp_local"
)
_SCATTER_SUM = Way(
    (Send(REDUCE_SCATTER, "padded", over="attn_dp"), Send(ALL_REDUCE, "dp_local", over="attn_tp")), peers="dp_local"
)

# ---- the records, in the order in which charts show them -------------------------------------------------------------

INT8_ALL_REDUCE = quantized_all_reduce(
    "int8_all_reduce",
    INT8,
    _INT8_ERRORS,
    colour="#d9822b",
    summary="sum of per-token symmetric INT8 values, replicated",
    kernel=OwnKernel("int8_all_reduce", argument="algorithm", norm=True),
)

# In any other format: an op says which one, and how many columns share a scale.
QUANTIZED_ALL_REDUCE = OpKind(
    "quantized_all_reduce",
    _LAYER_OUT,
    Rows.SUMMED,
    "sum of values in the wire format that it names, replicated",
    "#b8562b",
    numerics="quantized",
    parameters=("wire", "group", "algorithm", "pieces", "over", "residual", "impl"),
    ways={algorithm: way(None) for algorithm, way in _QUANTIZED.items()},
    wires=WIRES,
    errors=WIRE_ERRORS,
    kernel=OwnKernel("quantized_all_reduce", argument="format", norm=True),
)

_KINDS = (
    OpKind(
        "all_reduce",
        _OUT,
        Rows.SUMMED,
        "sum, replicated",
        "#8a929e",
        parameters=("algorithm", "pieces", "group", "residual", "impl"),
        ways={None: Way((Send(ALL_REDUCE),))},
        is_plain=True,
        folds=True,
        widens=True,
        kernel=OwnKernel("all_reduce", argument="algorithm", ways=_OWN_SUMS, norm=True),
        composed=_WHOLE_ROWS,
    ),
    OpKind(
        "reduce_scatter",
        _OUT,
        Rows.SCATTERED,
        "sum, one shard of the tokens each",
        "#2f6fd0",
        numerics="reordered",
        parameters=("group", "impl"),
        ways={None: Way((Send(REDUCE_SCATTER, "padded"),))},
        kernel=OwnKernel("reduce_scatter", norm=True),
        rounds=_shards,
    ),
    OpKind(
        "all_gather",
        _IN,
        Rows.GATHERED,
        "shards to all rows",
        "#8fb6ea",
        parameters=("group", "impl"),
        enters="shard",
        ways={None: Way((Send(ALL_GATHER),))},
        is_plain=True,
        kernel=OwnKernel("all_gather"),
        rounds=_shards,
    ),
    OpKind(
        "latent_all_gather",
        ("attn_in",),
        Rows.GATHERED,
        "gather of MLA latents instead of hidden rows",
        "#173f80",
        numerics="reordered",
        parameters=("from", "group", "impl"),
        enters="shard",
        ways={None: Way((Send(ALL_GATHER),))},
        latent=True,
        kernel=OwnKernel("all_gather", table="all_gather"),
    ),
    OpKind(
        "reduce_scatter_all_gather",
        _LAYER_OUT,
        Rows.SUMMED,
        "an all-reduce in two steps",
        "#5c92df",
        numerics="reordered",
        parameters=("group", "residual", "impl"),
        ways={
            None: Way(
                (Send(REDUCE_SCATTER, "padded"), Send(ALL_GATHER, "dp_local", over="attn_tp")),
                workspace=Workspace(shards=1),
            )
        },
        folds=True,
    ),
    INT8_ALL_REDUCE,
    QUANTIZED_ALL_REDUCE,
    OpKind(
        "all_reduce_all_gather",
        ("attn_out",),
        Rows.CROSSED,
        "MixedComm: sum over attn_tp and gather over the dp axis in one kernel",
        "#1b9a7a",
        numerics="reordered",
        parameters=("algorithm", "residual", "impl"),
        enters="dp_local",
        ways={None: _GATHER_SUM},
        folds=True,
        kernel=OwnKernel("gather_sum", argument="attn_tp", ways=dict.fromkeys(_OWN_PAIRS, _GATHER_SUM)),
        rounds=_gather_sum,
    ),
    OpKind(
        "reduce_scatter_all_reduce",
        ("mlp_out",),
        Rows.CROSSED,
        "MixedComm: reduce-scatter over the dp axis and sum over attn_tp in one kernel",
        "#6cc5ad",
        numerics="reordered",
        parameters=("algorithm", "residual", "impl"),
        ways={None: _SCATTER_SUM},
        folds=True,
        kernel=OwnKernel("scatter_sum", argument="attn_tp", ways=dict.fromkeys(_OWN_PAIRS, _SCATTER_SUM)),
        rounds=_scatter_sum,
    ),
    OpKind("slice", _IN, Rows.SLICED, "each rank keeps its rows; no wire", "#d7dce3"),
    OpKind("fused", ("attn_in", "mlp_in"), Rows.TAKEN, "done by the op before", "#cfe9e1"),
    OpKind("none", (*_OUT, *_IN), Rows.STAY, "nothing runs", "#ffffff"),
)
KINDS = {kind.name: kind for kind in _KINDS}
"""Every op by its name."""

WIRE_NAMES = tuple(dict.fromkeys(wire.name for kind in _KINDS for wire in kind.formats))
"""Every wire format by which some op travels."""
