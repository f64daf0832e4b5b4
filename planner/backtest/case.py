"""A back-test case: one published figure, the deployment it was measured on, and the tolerance set beforehand."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ..descriptions.base import FieldError, Spec, Text, build
from ..descriptions.calibration import Collective, MessageBytes
from ..strategies import strategies
from ..strategy.bounds import MAX_TOKENS
from ..strategy.errors import InputError, did_you_mean
from ..strategy.files import read_text
from ..strategy.layout import BOUNDARIES
from ..strategy.ops import Op
from ..strategy.ops import parse as parse_op
from ..strategy.words import FORWARD_MODES
from ..strategy.yaml_file import flow_text, read_mapping

OPTIMUM = "optimum"
Quantity = Literal[
    "collective_time",
    "norm_time",
    "latent_gemm_time",
    "compute_time",
    "step_time",
    "throughput",
    "ttft",
    "itl",
    "activation_memory",
    "communication_share",
    "op_latency",
]
_MODES_OF = {  # quantities that mean something in some modes alone
    "ttft": ("prefill", "mixed"),
    "itl": ("decode", "target_verify", "mixed"),
}
_MOST_COUNTS = 10_000
_SMALLEST_GAIN = 0.02
"""A published ratio further from 1 says which of two plans is the better one, so its tolerance must say so too."""
_HOW_TO_NAME = "a plan is {ops: {...}}, {strategy: NAME} or optimum"
_Number = Annotated[float, Field(allow_inf_nan=False, strict=True)]
_Tokens = Annotated[int, Field(gt=0, le=MAX_TOKENS, strict=True)]


def _or_one_count(schema: dict[str, Any]) -> None:
    """For editors: a list of token counts, or one."""
    items = schema.pop("items")
    schema["anyOf"] = [items, {"type": schema.pop("type"), "items": items}]


def _or_optimum(schema: dict[str, Any]) -> None:
    """For editors: a plan by what it holds, or the word."""
    schema["anyOf"] = [*schema["anyOf"], {"const": OPTIMUM}]


class PlanName(Spec):
    """A plan by its ops (wherever they are legal), by a strategy (its cheapest legal member), or the optimum.

    A file writes the last as the bare word `optimum`.
    """

    ops: dict[str, Any] | None = None
    strategy: Text | None = None
    optimum: Literal[True] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> PlanName:
        if [self.ops, self.strategy, self.optimum].count(None) != 2:
            raise ValueError(_HOW_TO_NAME)
        if self.strategy is not None and self.strategy not in strategies():
            hint = did_you_mean(self.strategy, strategies())
            raise FieldError("strategy", f"no such strategy; {hint}", self.strategy)
        if self.ops is not None and not self.ops:
            raise FieldError("ops", "names no op: a plan needs at least one")
        for boundary, op in (self.ops or {}).items():
            if boundary not in BOUNDARIES:
                raise FieldError(f"ops.{boundary}", f"no such boundary; {did_you_mean(boundary, BOUNDARIES)}")
            _placed(op, boundary)
        return self

    @property
    def named(self) -> dict[str, Op]:
        """The ops by boundary."""
        return {boundary: _placed(op, boundary) for boundary, op in (self.ops or {}).items()}

    def __str__(self) -> str:
        if self.optimum:
            return OPTIMUM
        if self.strategy is not None:
            return self.strategy
        return " · ".join(f"{boundary} {op}" for boundary, op in self.named.items())


class OpLatency(Spec):
    """One collective: `message_bytes` is the whole buffer (the gathered tensor, the input of a reduce-scatter)."""

    op: Collective
    impl: Text
    dtype: Literal["bf16", "fp16", "fp32", "int8"]
    group_size: Annotated[int, Field(ge=2, le=2**20, strict=True)]
    message_bytes: MessageBytes


class Case(Spec):
    """One published figure and the conditions it was measured under.

    tokens          one count, or a list: the prediction is the mean over them
    of, to          the figure is that of `of`, divided by that of `to` where there is one
    low, high       the tolerance, set before the prediction was made; of a ratio it ends before 1, where the gain is
                    above 2 %
    not_comparable  why no prediction can be held against the figure, where that is known beforehand
    """

    schema_: Literal["commplan/backtest/v1"] = Field(alias="schema")
    id: Text
    source: Text
    deployment: Text
    set: dict[str, Any] = Field(default_factory=dict)
    mode: Text | None = None
    tokens: Annotated[tuple[_Tokens, ...], Field(json_schema_extra=_or_one_count)] = ()
    quantity: Quantity
    of: Annotated[PlanName | None, Field(json_schema_extra=_or_optimum)] = None
    to: Annotated[PlanName | None, Field(json_schema_extra=_or_optimum)] = None
    op: OpLatency | None = None
    published: _Number
    low: _Number
    high: _Number
    notes: Text | None = None
    not_comparable: Text | None = None

    @field_validator("tokens", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        counts = value if isinstance(value, list | tuple) else (value,)
        if not 0 < len(counts) <= _MOST_COUNTS:
            raise ValueError(f"one token count or a list of 1 to {_MOST_COUNTS} is expected")
        return tuple(counts)

    @field_validator("of", "to", mode="before")
    @classmethod
    def _plan(cls, value: Any) -> Any:
        if value is not None and value != OPTIMUM and not isinstance(value, dict | PlanName):
            raise ValueError(_HOW_TO_NAME)
        return {OPTIMUM: True} if value == OPTIMUM else value

    @field_validator("set")
    @classmethod
    def _fields(cls, value: dict[str, Any]) -> dict[str, Any]:
        for field in value:
            if "=" in field:
                raise FieldError(field, "the name of a field has no `=`")
        return value

    @model_validator(mode="after")
    def _makes_sense(self) -> Case:
        if self.low > self.high:
            raise FieldError("low", f"lies above high {self.high:g}", self.low)
        self._keep_the_sign()
        if self.quantity == "op_latency":
            self._refuse("of", "to", why="op_latency is of one collective, named by `op`: leave it out")
            self._need("op", why="is missing: op_latency needs the collective")
        else:
            self._refuse("op", why=f"belongs to op_latency, and the quantity is {self.quantity}: leave it out")
            self._need("of", why=f"is missing: {_HOW_TO_NAME}")
            self._need("mode", why=f"is missing; one of {', '.join(FORWARD_MODES)}")
            self._need("tokens", why="is missing: one token count, or a list")
        accepted = _MODES_OF.get(self.quantity, FORWARD_MODES)
        if self.mode is not None and self.mode not in accepted:
            hint = did_you_mean(self.mode, accepted)
            raise FieldError("mode", f"{self.quantity} is not a figure of this mode; {hint}", self.mode)
        return self

    def _keep_the_sign(self) -> None:
        """A tolerance that reaches across 1 would call a prediction of the wrong sign right."""
        if self.to is None or abs(self.published - 1) <= _SMALLEST_GAIN:
            return
        end, side, value = ("high", "below", self.high) if self.published < 1 else ("low", "above", self.low)
        if value < 1 if side == "below" else value > 1:
            return
        text = (
            f"reaches 1 from a published ratio of {self.published:g}, so a prediction of the wrong sign would be "
            f"inside: give a value {side} 1, such as {(1 + self.published) / 2:.4g} (half of the published gain)"
        )
        raise FieldError(end, text, value)

    def _need(self, name: str, why: str) -> None:
        if not getattr(self, name):
            raise FieldError(name, why, kind="missing_key")

    def _refuse(self, *names: str, why: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise FieldError(name, why)

    @property
    def overrides(self) -> tuple[str, ...]:
        """`set` as the texts that `--set` takes."""
        return tuple(f"{field}={flow_text(value)}" for field, value in self.set.items())


def shipped_cases() -> list[Path]:
    """The case files that come with commplan."""
    root = files("commplan.configs") / "backtests"
    return sorted(Path(str(entry)) for entry in root.iterdir() if entry.name.endswith(".yaml"))


def find_case(name: str) -> Path:
    """The file of a case: a path, or the name of one that ships."""
    path = Path(name)
    if not os.path.exists(path) and "/" not in name:
        shipped = {case.stem: case for case in shipped_cases()}
        if name in shipped:
            return shipped[name]
        if not name.endswith((".yaml", ".yml", ".json")):
            hint = did_you_mean(name, shipped) if name else "name a file"
            raise InputError(f"neither a file nor a case that ships; {hint}", file=name or None)
    return path


def read_case(path: str | Path) -> Case:
    """A case from its file; raises InputError naming file, field, value and what is accepted."""
    data = read_mapping(path)
    if not read_text(path).endswith(("\n", "}", "]")):
        message = "the file does not end with a line break: it may be truncated"
        raise InputError(message, file=str(path), kind="truncated")
    return build(Case, data, str(path))


def _placed(value: Any, boundary: str) -> Op:
    """The op of a spelling; FieldError where it is none, or has no place at the boundary."""
    try:
        op = parse_op(value, f"ops.{boundary}")
    except InputError as error:
        raise FieldError(error.field or f"ops.{boundary}", error.message, error.value) from None
    if boundary not in op.kind.boundaries:
        where = ", ".join(op.kind.boundaries)
        raise FieldError(f"ops.{boundary}", f"{op.name} has no place here; it belongs at {where}", op.name)
    return op
