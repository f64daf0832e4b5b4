"""What all descriptions share: frozen models that refuse unknown keys, and errors in the words of the file."""

from __future__ import annotations

import types
import typing
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError, did_you_mean

Provenance = Literal["measured", "table", "table (transferred)", "datasheet", "formula", "assumed"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
PositiveInt = Annotated[int, Field(gt=0, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Fraction = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False, strict=True)]
Text = Annotated[str, Field(min_length=1, strict=True)]


class Spec(BaseModel):
    """A frozen description; unknown keys and NaN are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())


class Figure(Spec):
    """A number with where it comes from. The unit is in the name of the field that holds it."""

    value: Positive
    provenance: Provenance
    source: Text


S = TypeVar("S", bound=Spec)


def build(spec: type[S], data: dict[str, Any], file: str) -> S:
    """`spec` from a mapping; raises InputError for the first thing wrong, naming field, value and what is accepted."""
    try:
        return spec.model_validate(data)
    except ValidationError as error:
        raise _translated(spec, error, file) from None


def _translated(spec: type[Spec], error: ValidationError, file: str) -> InputError:
    details = error.errors(include_url=False, include_context=True)
    # An unknown key explains a missing one (a typing error makes both), so it is reported first.
    detail = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    field = _path(detail["loc"])
    if detail["type"] == "extra_forbidden":
        accepted = _accepted_keys(spec, detail["loc"][:-1])
        return InputError(
            f"unknown key; {did_you_mean(detail['loc'][-1], accepted)}", file=file, field=field, kind="unknown_key"
        )
    if detail["type"] == "missing":
        return InputError("is missing and has no default", file=file, field=field, kind="missing_key")
    message = detail["msg"]
    message = message.removeprefix("Value error, ")
    if detail["type"] in ("float_type", "int_type") and isinstance(detail["input"], str):
        message = "a plain number is expected; the unit is part of the field's name"
    else:
        message = message[0].lower() + message[1:].replace("Input should", "should").replace("input should", "should")
        message = message.replace("input should", "should")
    value = detail["input"] if not isinstance(detail["input"], dict) else None
    return InputError(message, file=file, field=field or None, value=value)


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def _accepted_keys(spec: type[Spec], location: tuple[int | str, ...]) -> list[str]:
    current: Any = spec
    for part in location:
        current = _element(current) if isinstance(part, int) else _child(current, part)
    model = _model(current)
    return [f.alias or name for name, f in model.model_fields.items()] if model else []


def _child(annotation: Any, key: str) -> Any:
    model = _model(annotation)
    if model and key in model.model_fields:
        return model.model_fields[key].annotation
    arguments = typing.get_args(annotation)
    return arguments[-1] if arguments else None


def _element(annotation: Any) -> Any:
    arguments = typing.get_args(annotation)
    return arguments[0] if arguments else None


def _model(annotation: Any) -> type[Spec] | None:
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple, list, Annotated):
        for argument in typing.get_args(annotation):
            if found := _model(argument):
                return found
    return None
