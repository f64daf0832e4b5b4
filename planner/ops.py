"""The vocabulary of ops: what can run at a boundary, and how a strategy file spells it.

An op is a name plus the few parameters that change what it does. Light on purpose: the runtime loads this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import InputError, did_you_mean

NUMERICS_CLASSES = ("exact", "reordered", "quantized")
ALGORITHMS = ("gather", "two_shot")
GROUPS = ("tp", "attn_tp", "attn_dp")
RESIDUAL_RULES = ("fold", "gather")

_OUT = ("embed_out", "attn_out", "mlp_out")
_LAYER_OUT = ("attn_out", "mlp_out")
_IN = ("attn_in", "mlp_in", "head_in")


@dataclass(frozen=True, slots=True)
class OpKind:
    """What all ops of one name have in common."""

    name: str
    boundaries: tuple[str, ...]
    numerics: str = "exact"
    is_collective: bool = True
    spans_two: bool = False  # does the work of the next boundary too, which then says `fused`
    parameters: tuple[str, ...] = ("group", "impl")
    summary: str = ""


_KINDS = (
    OpKind("none", (*_OUT, *_IN), is_collective=False, parameters=(), summary="nothing runs"),
    OpKind("slice", _IN, is_collective=False, parameters=(), summary="each rank keeps its rows; no wire"),
    OpKind("fused", ("attn_in", "mlp_in"), is_collective=False, parameters=(), summary="done by the op before"),
    OpKind("all_reduce", _OUT, parameters=("group", "residual", "impl"), summary="sum, replicated"),
    OpKind(
        "int8_all_reduce",
        _LAYER_OUT,
        numerics="quantized",
        parameters=("algorithm", "group", "residual", "impl"),
        summary="sum of per-token symmetric INT8 values, replicated",
    ),
    OpKind("reduce_scatter", _OUT, numerics="reordered", summary="sum, one shard of the tokens each"),
    OpKind(
        "reduce_scatter_all_gather",
        _LAYER_OUT,
        numerics="reordered",
        parameters=("group", "residual", "impl"),
        summary="an all-reduce in two steps",
    ),
    OpKind("all_gather", _IN, summary="shards to all rows"),
    OpKind(
        "latent_all_gather",
        ("attn_in",),
        numerics="reordered",
        parameters=("from", "group", "impl"),
        summary="gather of MLA latents instead of hidden rows",
    ),
    OpKind(
        "all_reduce_all_gather",
        ("attn_out",),
        numerics="reordered",
        spans_two=True,
        parameters=("residual", "impl"),
        summary="MixedComm: sum over attn_tp and gather over the dp axis in one kernel",
    ),
    OpKind(
        "reduce_scatter_all_reduce",
        ("mlp_out",),
        numerics="reordered",
        spans_two=True,
        parameters=("residual", "impl"),
        summary="MixedComm: reduce-scatter over the dp axis and sum over attn_tp in one kernel",
    ),
)
KINDS = {kind.name: kind for kind in _KINDS}
OP_NAMES = tuple(KINDS)
QUANTIZED_OPS = frozenset(k.name for k in _KINDS if k.numerics == "quantized")
SUM_OPS = frozenset(
    {
        "all_reduce",
        "reduce_scatter_all_gather",
        "all_reduce_all_gather",
        "reduce_scatter_all_reduce",
    }
)


@dataclass(frozen=True, slots=True, order=True)
class Op:
    """One op as it stands at a boundary.

    `group` is spelled only where attention DP gives a choice; `impl` None means the backend of the file.
    `producer` is the `from` of a latent gather: the boundary that made the shard.
    """

    name: str
    algorithm: str | None = None
    group: str | None = None
    residual: str | None = None
    impl: str | None = None
    producer: str | None = None

    @property
    def kind(self) -> OpKind:
        """What all ops of this name share."""
        return KINDS[self.name]

    def __str__(self) -> str:
        spelled = spell(self)
        if isinstance(spelled, str):
            return spelled
        ((name, parameters),) = spelled.items()
        return f"{name}({', '.join(f'{k}={v}' for k, v in parameters.items())})"


NONE = Op("none")
SLICE = Op("slice")
FUSED = Op("fused")


def numerics_rank(numerics: str) -> int:
    """0 for exact, 1 for reordered, 2 for quantized."""
    return NUMERICS_CLASSES.index(numerics)


def spell(op: Op) -> str | dict[str, dict[str, str]]:
    """As in a strategy file: the bare name, or `{name: {parameter: value}}`."""
    values = {
        "from": op.producer,
        "algorithm": op.algorithm,
        "group": op.group,
        "residual": op.residual,
        "impl": op.impl,
    }
    given = {key: value for key, value in values.items() if value is not None}
    return {op.name: given} if given else op.name


def parse(value: Any, field: str) -> Op:
    """An op from its spelling; raises InputError with the field and what would be accepted."""
    if isinstance(value, str):
        return _build(value, {}, field)
    if isinstance(value, dict) and len(value) == 1:
        ((name, parameters),) = value.items()
        if parameters is None:
            parameters = {}
        if isinstance(name, str) and isinstance(parameters, dict):
            return _build(name, parameters, field)
    raise InputError("an op is a name, or a mapping of one name to its parameters", field=field, value=value)


_ACCEPTED = {"algorithm": ALGORITHMS, "group": GROUPS, "residual": RESIDUAL_RULES}


def _build(name: str, parameters: dict[str, Any], field: str) -> Op:
    kind = KINDS.get(name)
    if kind is None:
        raise InputError(f"no such op; {did_you_mean(name, OP_NAMES)}", field=field, value=name)
    for key, value in parameters.items():
        where = f"{field}.{name}.{key}"
        if key not in kind.parameters:
            hint = did_you_mean(key, kind.parameters) if kind.parameters else "it takes no parameters"
            raise InputError(f"{name} has no parameter '{key}'; {hint}", field=where)
        if not isinstance(value, str) or value not in _ACCEPTED.get(key, (value,)):
            accepted = _ACCEPTED.get(key)
            hint = did_you_mean(value, accepted) if accepted else "a name is expected"
            raise InputError(f"not accepted; {hint}", field=where, value=value)
    if name == "int8_all_reduce" and "algorithm" not in parameters:
        raise InputError(
            "int8_all_reduce needs its algorithm: {int8_all_reduce: {algorithm: gather}} or two_shot", field=field
        )
    return Op(
        name,
        algorithm=parameters.get("algorithm"),
        group=parameters.get("group"),
        residual=parameters.get("residual"),
        impl=parameters.get("impl"),
        producer=parameters.get("from"),
    )
