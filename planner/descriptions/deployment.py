"""A deployment: which model on which machine, split how, doing what work, under which policy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from ..strategy.bounds import MAX_LAYERS, MAX_TOKENS
from ..strategy.errors import did_you_mean
from ..strategy.layout import LAYER_BOUNDARIES, TENSOR_PARALLEL
from ..strategy.op_kinds import KINDS, WIRE_NAMES
from ..strategy.wire_formats import INT8
from ..strategy.words import FORWARD_MODES, LaunchState, ModelRole, MoeBackend
from ..strategy.words import Numerics as NumericsClass
from .base import Count, FieldError, Fraction, GrownSpec, OneOf, Positive, PositiveInt, Spec, Text, raise_all
from .weight_types import WeightType

if TYPE_CHECKING:
    from ..strategy.ops import Op

DEPLOYMENT_SCHEMA = "commplan/deployment/v1"
DTYPE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1, "int4": 0.5}
"""Of what travels and what is cached; of weights see weight_types.py."""

ActivationType = Literal["fp32", "bf16", "fp16"]
CacheType = Literal["fp32", "bf16", "fp16", "fp8", "int8"]


_NO_CONTEXT_PARALLELISM = (
    "context parallelism splits each sequence over ranks, and no layout of a plan does: leave it out; for long "
    "contexts take a larger tp, attn_dp, or pp with executor plan_only"
)
_REPLICAS = (
    "replicas share nothing, so each is a deployment of its own: leave it out; for attention alone it is attn_dp"
)
_ELSEWHERE = {
    **dict.fromkeys(("cp", "dcp", "pcp", "attn_cp", "context_parallel"), _NO_CONTEXT_PARALLELISM),
    "sp": "sequence parallelism is no size but a choice at each boundary (strategy tp_sp): leave it out",
    "dp": _REPLICAS,
    "moe_tp": "follows from tp / ep: leave it out",
}
"""Keys that others have, and what there is here instead."""


def elsewhere(key: object) -> str | None:
    """Of a key of parallelism that others have and commplan has not (`cp`, `cp_size`): why, and what to write."""
    return _ELSEWHERE.get(str(key).removesuffix("_size"))


class ParallelismSpec(GrownSpec):
    """tp ranks; attn_dp splits them for attention, ep for the experts of a MoE; pp divides the layers over stages.

    A stage is tp ranks, so a deployment takes tp * pp devices. Experts over fewer than tp ranks (ep) are each split
    over tp / ep.
    """

    LATER: ClassVar = ("pp",)

    tp: PositiveInt
    attn_dp: PositiveInt = 1
    ep: PositiveInt = 1
    moe_backend: MoeBackend = TENSOR_PARALLEL
    pp: PositiveInt = 1

    @model_validator(mode="before")
    @classmethod
    def _has_no_such(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            if why := elsewhere(key):
                raise FieldError(key, why, data[key], kind="unknown_key")
        return data

    @model_validator(mode="after")
    def _divides(self) -> ParallelismSpec:
        for name in ("attn_dp", "ep"):
            value = getattr(self, name)
            if self.tp % value:
                raise FieldError(name, f"does not divide tp {self.tp}", value)
        return self


class Dtypes(Spec):
    """Types of weights, of what travels between devices, and of the KV cache.

    weights       left out: that of the model's quantisation, else bf16
    weight_block  [rows, columns] under one scale; null: none. Left out: that of the model's quantisation, else what
                  checkpoints of the type have
    """

    weights: WeightType = "bf16"
    weight_block: tuple[PositiveInt, PositiveInt] | None = None
    activations: ActivationType = "bf16"
    kv_cache: CacheType = "bf16"


class ModeSpec(GrownSpec):
    """The work of one forward mode: its token counts, and what each token attends to.

    tokens           [min, max] rows of the hidden state in one forward over the whole tp group
    sequence_tokens  new tokens per request (prefill, mixed); the last may be shorter
    prefix_tokens    tokens of each request that are cached already
    context_tokens   cached tokens of a decoding request (decode, mixed, target_verify, draft_extend)
    draft_tokens     rows per request in target_verify and draft_extend
    decode_fraction  share of the rows of a mixed forward that are decode steps
    launch           `eager` or `graph`, where it is not what the executor does by itself
    graph_up_to      forwards of up to so many tokens are replayed from graphs, and larger ones are launched eagerly
    measured_step_us  step times measured under plain all-reduce by the library, by token count, where the device and
                     not the host was the bound: they scale what is not communication
    """

    LATER: ClassVar = ("launch", "graph_up_to", "measured_step_us")

    tokens: tuple[PositiveInt, PositiveInt]
    sequence_tokens: PositiveInt | None = None
    prefix_tokens: Count = 0
    context_tokens: PositiveInt | None = None
    draft_tokens: PositiveInt | None = None
    decode_fraction: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)] | None = None
    launch: LaunchState | None = None
    graph_up_to: PositiveInt | None = None
    measured_step_us: (
        Annotated[dict[Annotated[int, Field(gt=0, le=MAX_TOKENS)], Positive], Field(min_length=1)] | None
    ) = None

    @field_validator("tokens", mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise ValueError("[min, max] is expected: two positive whole numbers")
        return value

    @model_validator(mode="after")
    def _span(self) -> ModeSpec:
        low, high = self.tokens
        if low > high:
            raise FieldError("tokens", "[min, max] is expected; min is above max", [low, high])
        if high > MAX_TOKENS:
            raise FieldError("tokens", f"token counts up to {MAX_TOKENS} can be planned", [low, high])
        if self.launch is not None and self.graph_up_to is not None:
            raise FieldError("graph_up_to", "`launch` says it of all forwards; one of the two is expected")
        return self


REQUIRED_BY_MODE: dict[str, tuple[str, ...]] = {
    "prefill": ("sequence_tokens",),
    "mixed": ("sequence_tokens", "context_tokens", "decode_fraction"),
    "decode": ("context_tokens",),
    "target_verify": ("context_tokens", "draft_tokens"),
    "draft_extend": ("context_tokens", "draft_tokens"),
}
_ALLOWED_BY_MODE = {
    mode: {
        *required,
        "tokens",
        *ModeSpec.LATER,
        *(("prefix_tokens",) if mode in ("prefill", "mixed") else ()),
    }
    for mode, required in REQUIRED_BY_MODE.items()
}


class OpRule(Spec):
    """A rule about ops: by this impl, on these layers, at this boundary, in these modes. What is left out means all."""

    op: Annotated[Text, Field(json_schema_extra={"enum": list(KINDS)})]
    impl: Text | None = None
    layers: str | int | None = None
    boundary: Literal["embed_out", "attn_in", "attn_out", "mlp_in", "mlp_out", "head_in"] | None = None
    modes: tuple[str, ...] | None = None

    @field_validator("layers", mode="before")
    @classmethod
    def _layers(cls, value: Any) -> Any:
        if value is not None:
            parse_layers(value)
        return value

    @model_validator(mode="after")
    def _known(self) -> OpRule:
        if self.op not in KINDS:
            raise FieldError("op", f"no such op; {did_you_mean(self.op, KINDS)}", self.op)
        if self.modes == ():
            raise FieldError("modes", "names no mode, so the rule would say nothing: left out means all of them")
        for mode in self.modes or ():
            if mode not in FORWARD_MODES:
                raise FieldError("modes", f"no such forward mode; {did_you_mean(mode, FORWARD_MODES)}", mode)
        if self.layers is not None and self.boundary is not None and self.boundary not in LAYER_BOUNDARIES:
            raise FieldError("layers", f"{self.boundary} belongs to no layer: leave `layers` out", self.layers)
        return self

    def means(self, op: Op, library: str) -> bool:
        """Is it this op, by the rule's impl if it names one? `library` performs ops that name none."""
        return op.name == self.op and self.impl in (None, op.impl or library)

    def covers(self, mode: str, boundary: str, layer: int | None) -> bool:
        """True where the rule speaks of this place; layer None stands for embed_out and head_in."""
        if self.modes is not None and mode not in self.modes:
            return False
        if self.boundary is not None and self.boundary != boundary:
            return False
        if self.layers is None:
            return True
        return layer is not None and layer in parse_layers(self.layers)


class Numerics(GrownSpec):
    """How far from the plain all-reduce the plan may go.

    `error_budget` E bounds quantised choices: sum over quantised boundaries of (w_b * e_b)^2 <= E^2, with w_b = 1
    unless `sensitivity` gives weights per boundary and layer. `perplexity_budget` bounds them by the relative rise of
    the model's perplexity, as in 0.005, where `sensitivity` names a file that was measured on the model.

    outlier_ratio     largest value of a row of partial sums over its RMS, by which errors grow; left out: as in normal
                      rows
    wire_formats      formats in which quantised sums may travel
    ranks_may_differ  true: kernels after which the ranks hold different values are allowed too
    accumulation      fp32: sums of more than two ranks add in fp32 alone; any: as an impl does
    batch_invariant   true: a row comes out the same whatever is beside it: one plan for all token counts of a mode, of
                      impls that add in the same order at every count
    """

    LATER: ClassVar = (
        "perplexity_budget",
        "wire_formats",
        "ranks_may_differ",
        "outlier_ratio",
        "accumulation",
        "batch_invariant",
    )

    loosest: NumericsClass = "reordered"
    error_budget: Positive | None = None
    perplexity_budget: Positive | None = None
    sensitivity: Text | None = None
    outlier_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False, strict=True)] | None = None
    wire_formats: tuple[Annotated[str, OneOf(WIRE_NAMES)], ...] = (INT8.name,)
    ranks_may_differ: Annotated[bool, Field(strict=True)] = False
    accumulation: Literal["any", "fp32"] = "any"
    batch_invariant: Annotated[bool, Field(strict=True)] = False
    pin: tuple[OpRule, ...] = ()
    forbid: tuple[OpRule, ...] = ()


class Limits(Spec):
    """Limits a plan must keep.

    static_fraction  share of a device's memory that weights and KV cache may fill; left out: the executor's
    """

    activation_memory_gb: Positive | None = None
    static_fraction: Fraction | None = None


class Search(Spec):
    """How token ranges are merged."""

    range_tolerance: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False, strict=True)] = 0.005


class Deployment(Spec):
    """Everything a plan is made for.

    loaded_layers  a stack of the model's first layers is what runs, for timing; memory is that of those alone
    """

    schema_: Literal["commplan/deployment/v1"] = Field(alias="schema")
    name: Text
    description: Text | None = None
    loaded_layers: Annotated[int, Field(gt=0, le=MAX_LAYERS, strict=True)] | None = None
    model: Text
    model_role: ModelRole = "target"
    hardware: Text
    executor: Text
    parallelism: ParallelismSpec
    dtypes: Dtypes = Dtypes()
    modes: Annotated[dict[str, ModeSpec], Field(json_schema_extra={"propertyNames": {"enum": list(FORWARD_MODES)}})]
    numerics: Numerics = Numerics()
    limits: Limits = Limits()
    search: Search = Search()

    @field_validator("modes")
    @classmethod
    def _modes_are_complete(cls, modes: dict[str, ModeSpec]) -> dict[str, ModeSpec]:
        if not modes:
            raise ValueError(f"is empty; name at least one of {', '.join(FORWARD_MODES)}")
        raise_all([error for mode, work in modes.items() for error in _faults(mode, work)])
        return modes


def _faults(mode: str, work: ModeSpec) -> Iterator[FieldError]:
    if mode not in FORWARD_MODES:
        yield FieldError(mode, f"no such forward mode; {did_you_mean(mode, FORWARD_MODES)}")
        return
    for name in REQUIRED_BY_MODE[mode]:
        if getattr(work, name) is None:
            why = "is missing: without it a step time means nothing"
            yield FieldError(f"{mode}.{name}", why, kind="missing_key")
    for name in sorted(work.model_fields_set - _ALLOWED_BY_MODE[mode]):
        yield FieldError(f"{mode}.{name}", f"has no meaning in {mode}; leave it out", getattr(work, name))


_LAYERS = re.compile(r"[0-9]{1,6}(-[0-9]{1,6})?(, ?[0-9]{1,6}(-[0-9]{1,6})?)*\Z")
_MAX_LAYER = 100_000


def parse_layers(value: Any) -> frozenset[int]:
    """Layer numbers from `7`, `0-60` or `0-2,5`; raises ValueError for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_LAYER:
        return frozenset({value})
    if not isinstance(value, str) or not _LAYERS.match(value):
        raise ValueError("layers are written 7, 0-60 or 0-2,5")
    layers: set[int] = set()
    count = 0
    for part in value.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if low > high or high > _MAX_LAYER:
            raise ValueError(f"layers {part}: the first must not be above the last, nor the last above {_MAX_LAYER}")
        count += high - low + 1
        if count > _MAX_LAYER + 1:
            raise ValueError(f"layers {part}: layers are named twice")
        layers.update(range(low, high + 1))
    return frozenset(layers)
