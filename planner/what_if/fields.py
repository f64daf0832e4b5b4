"""Which fields a sweep may vary, and the values it gives them.

  --vary tokens=1,64,4096            a list
  --vary tokens=16..16384:x2         16, 32, 64, ...
  --vary parallelism.tp=2..8:+2      2, 4, 6, 8 (`2..8` counts one by one)

`tokens` and `mode` are the forward's; every other name is a field of the deployment, as `--set` spells it, with
`hardware.` and `model.` reaching into those files. A few have short names.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any

from pydantic import create_model

from ..descriptions.base import Figure, Spec, build
from ..descriptions.deployment import Deployment, ParallelismSpec, elsewhere
from ..descriptions.hardware import Hardware
from ..descriptions.loader import find
from ..descriptions.model import Model
from ..executors import load_executor
from ..strategy.errors import InputError, did_you_mean
from ..strategy.words import FORWARD_MODES
from ..strategy.yaml_file import parse_yaml, refuse_control_characters
from .evaluation import check_tokens

FORWARD_FIELDS = ("tokens", "mode")
LINK_BANDWIDTH = "hardware.links.intra_node.bandwidth_gb_per_s"
SHORT_NAMES = {
    **{name: f"parallelism.{name}" for name in ("tp", "attn_dp", "ep", "moe_backend", "pp")},
    **{name: f"dtypes.{name}" for name in ("weights", "activations", "kv_cache")},
    **{name: f"numerics.{name}" for name in ("loosest", "error_budget", "perplexity_budget", "wire_formats")},
    "activation_memory_gb": "limits.activation_memory_gb",
    "link_bandwidth": LINK_BANDWIDTH,
}
# Fields that change what an op costs or whether it fits, never which ops are offered.
PRICES = (
    "hardware.links.",
    "hardware.compute.",
    "hardware.memory.",
    "numerics.error_budget",
    "numerics.perplexity_budget",
    "limits.",
)
_INTO: dict[str, type[Spec]] = {"hardware": Hardware, "model": Model}
_NAMED = {"model": "models", "hardware": "hardware"}  # fields that name a file -> the folder of its presets
_MOST_VALUES = 100_000


@dataclass(frozen=True)
class Axis:
    """A field, as the user wrote it and in full, with its values in order."""

    name: str
    field: str
    values: tuple[Any, ...]

    @property
    def is_link(self) -> bool:
        """True where measured tables of the machine no longer apply as they are."""
        return self.field.startswith("hardware.links.")


Vary = str | tuple[str, str | tuple[Any, ...]]
"""`FIELD=VALUES`, or a field and its values in order, or spelled."""


def read_axes(varied: tuple[Vary, ...], modes: tuple[str, ...], beside: str | None = None) -> tuple[Axis, ...]:
    """The axes of a sweep over the deployment in the file `beside`.

    InputError for a field that does not exist, a value that it can have in no deployment, no value, or a field named
    twice. A value that this one deployment cannot have is a point without figures, and no error.
    """
    axes: list[Axis] = []
    for each in varied:
        name, values = _parted(each) if isinstance(each, str) else each
        axis = _axis(name, values, modes, beside)
        if axis.field in [other.field for other in axes]:
            raise InputError("is varied twice: give all its values at once", file="--vary", field=axis.name)
        axes.append(axis)
    return tuple(axes)


def _parted(text: str) -> tuple[str, str]:
    """The field and the values of `FIELD=VALUES`."""
    name, separator, values = text.partition("=")
    if not separator or not name.strip():
        raise InputError("a sweep is written FIELD=VALUES, as in tokens=1,64,4096", field="--vary", value=text)
    return name.strip(), values


def _axis(name: str, values: str | tuple[Any, ...], modes: tuple[str, ...], beside: str | None) -> Axis:
    """An axis of values, given or spelled."""
    field = SHORT_NAMES.get(name, name)
    check_field(field, modes)
    found = tuple(_values(values, name)) if isinstance(values, str) else values
    if not found:
        raise _no_value(name)
    for value in found:
        try:
            check_value(field, value, modes, beside)
        except InputError as error:
            how = "; values are written 1,64,4096, ranges 1..64, 16..4096:x2 or 2..8:+2" if _like_a_range(value) else ""
            raise InputError(error.message + how, file="--vary", field=name, value=value, kind=error.kind) from None
    return Axis(name, field, tuple(dict.fromkeys(map(_hashable, found))))


def _like_a_range(value: object) -> bool:
    return isinstance(value, str) and value[:1].isdigit()


def check_field(field: str, modes: tuple[str, ...]) -> None:
    """Raise InputError unless a deployment with these modes has the field."""
    if field in FORWARD_FIELDS:
        return
    head, *rest = field.split(".")
    if head == "modes" and rest and rest[0] not in modes:
        raise _no_such(field, rest[0], [m for m in FORWARD_MODES if m in modes])
    if head in _INTO and rest:
        _walk(_INTO[head], rest, field)
        return
    if head not in Deployment.model_fields and (why := elsewhere(head)):
        raise InputError(why, kind="unknown_key", file="--vary", field=field)
    if head not in Deployment.model_fields or head == "schema_":
        raise _no_such(field, head, [*_names(Deployment), *FORWARD_FIELDS, *SHORT_NAMES])
    _walk(Deployment, [head, *rest], field)


def check_value(field: str, value: Any, modes: tuple[str, ...], beside: str | None) -> None:
    """Raise InputError for a value that the field can have in no deployment, or that names nothing there is."""
    if field == "mode":
        if value not in modes:
            raise InputError(f"the deployment has no such mode; {did_you_mean(value, modes)}")
    elif field == "tokens":
        check_tokens(value)
    elif field == "executor":
        load_executor(value if isinstance(value, str) else str(value))
    elif field in _NAMED:
        if not isinstance(value, str):
            raise InputError("a preset or a path is expected")
        find(value, _NAMED[field], beside, field)
    else:
        head, *rest = field.split(".")
        annotation = (
            _walk(_INTO[head], rest, field) if head in _INTO and rest else _walk(Deployment, [head, *rest], field)
        )
        build(_holder(annotation), {"value": value}, "--vary")


@cache
def _holder(annotation: Any) -> type[Spec]:
    """A description of one field, whose value is held to what the annotation says. A figure may be its bare number."""
    model = _model(annotation)
    if model is not None and issubclass(model, Figure):
        annotation = model.model_fields["value"].rebuild_annotation() | annotation
    return create_model("Varied", __base__=Spec, value=(annotation, ...))


def _walk(spec: type[Spec], parts: list[str], field: str) -> Any:
    """What may stand in a field of a description, by the path to it; InputError where there is no such field."""
    current: Any = spec
    for part in parts:
        model = _model(current)
        if model is not None:
            names = _names(model)
            if part not in names:
                if model is ParallelismSpec and (why := elsewhere(part)):
                    raise InputError(why, kind="unknown_key", file="--vary", field=field)
                raise _no_such(field, part, names)
            current = model.model_fields[part].rebuild_annotation()
        elif typing.get_origin(current) is dict:
            current = typing.get_args(current)[-1]
        else:
            raise InputError(f"holds a plain value or a list, so no '{part}' lies below it", file="--vary", field=field)
    inner = _model(current)
    if inner is not None and not issubclass(inner, Figure) and not _is_list(current):
        raise InputError(f"is a section; vary one of {', '.join(_names(inner))} in it", file="--vary", field=field)
    return current


def _no_such(field: str, part: str, accepted: list[str]) -> InputError:
    hint = did_you_mean(part, accepted)
    return InputError(f"no such field; {hint}", kind="unknown_key", file="--vary", field=field)


def _names(spec: type[Spec]) -> list[str]:
    return [name for name in spec.model_fields if name != "schema_"]


def _is_list(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (tuple, list)


def _model(annotation: Any) -> type[Spec] | None:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated, tuple):
        return next((found for a in typing.get_args(annotation) if (found := _model(a))), None)
    return None


# ---- values ----------------------------------------------------------------------------------------------------------


def _values(text: str, name: str) -> Iterator[Any]:
    parts = list(_split(text))
    if not any(part.strip() for part in parts):
        raise _no_value(name)
    count = 0
    for part in parts:
        for value in _range(part.strip(), name) if ".." in part else (_value(part.strip(), name),):
            count += 1
            if count > _MOST_VALUES:
                raise InputError(f"more than {_MOST_VALUES} values", file="--vary", field=name, value=part)
            yield value


def _no_value(name: str) -> InputError:
    return InputError("no value is given", file="--vary", field=name)


def _split(text: str) -> Iterator[str]:
    """Parts between commas outside brackets."""
    depth, start = 0, 0
    for index, character in enumerate(text):
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            yield text[start:index]
            start = index + 1
    yield text[start:]


def _value(text: str, name: str) -> Any:
    if not text:
        raise InputError("an empty value; write null for none", file="--vary", field=name)
    try:
        value = parse_yaml(text)
        refuse_control_characters(value)
    except InputError as error:
        raise InputError(error.message, file="--vary", field=name, value=text) from None
    return value


def _range(text: str, name: str) -> Iterator[int | float]:
    span, _, rule = text.partition(":")
    first, _, last = span.partition("..")
    low, high = _value(first, name), _value(last, name)
    step: Any = _value(rule[1:], name) if rule[1:] else rule or 1
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) and abs(x) < 1e15 for x in (low, high, step))
    grows = rule.startswith(("x", "*"))
    spelled = not rule or grows or rule.startswith("+")
    if not numbers or not spelled or low > high or (grows and (step <= 1 or low <= 0)) or step <= 0:
        how = "a range is FIRST..LAST, FIRST..LAST:+STEP or FIRST..LAST:xFACTOR, with FIRST below LAST"
        raise InputError(how, file="--vary", field=name, value=text)
    value, index = low, 0
    while value <= high * (1 + 1e-12):
        yield value
        index += 1
        exact = low * step**index if grows else low + step * index
        value = round(exact) if isinstance(low, int) and isinstance(high, int) and grows else exact


def _hashable(value: Any) -> Any:
    return _Mapping(value) if isinstance(value, dict) else _List(value) if isinstance(value, list) else value


class _Mapping(dict[str, Any]):
    def __hash__(self) -> int:  # type: ignore[override]
        return hash(repr(self))


class _List(list[Any]):
    def __hash__(self) -> int:  # type: ignore[override]
        return hash(repr(self))
