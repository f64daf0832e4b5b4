"""What all descriptions share: frozen models that refuse unknown keys, and errors in the words of the file."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic_core import CoreSchema, core_schema

from ..strategy.bounds import LARGEST, LARGEST_INT, SMALLEST
from ..strategy.errors import InputError, did_you_mean, nearest, together
from ..strategy.lines_of_files import located
from ..strategy.words import Provenance

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Positive = Annotated[float, Field(ge=SMALLEST, le=LARGEST, allow_inf_nan=False, strict=True)]
PositiveInt = Annotated[int, Field(gt=0, le=LARGEST_INT, strict=True)]
Count = Annotated[int, Field(ge=0, le=LARGEST_INT, strict=True)]
Fraction = Annotated[float, Field(ge=SMALLEST, le=1, allow_inf_nan=False, strict=True)]
Text = Annotated[str, Field(min_length=1, strict=True)]


class Spec(BaseModel):
    """A frozen description; unknown keys and NaN are errors."""

    # Validators are built when something is first read, and those inside another with it: most files use a few alone.
    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=(), defer_build=True
    )


class GrownSpec(Spec):
    """A description with fields that came later: where one says what it says by default, it is not written.

    So fingerprints of files that are older than the field stay what they were.
    """

    LATER: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = write(self)
        fields = type(self).model_fields
        return {k: v for k, v in data.items() if k not in self.LATER or getattr(self, k) != fields[k].default}


class Figure(Spec):
    """A number with where it comes from. The unit is in the name of the field that holds it."""

    value: Positive
    provenance: Provenance
    source: Text


class FractionFigure(Figure):
    """A figure that is a part of a whole."""

    value: Fraction


def one_of(names: Iterable[str]) -> str:
    """What is said of a value that is none of the names."""
    *others, last = [repr(name) for name in names]
    return f"should be {', '.join(others)} or {last}" if others else f"should be {last}"


class OneOf:
    """A text that is one of names which stand in records: a Literal that is read from data."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "enum": list(self.names)}

    def _checked(self, value: object) -> object:
        if value not in self.names:
            raise ValueError(one_of(self.names))
        return value


class FieldError(ValueError):
    """What a validator of a whole description raises when it can name the field within.

    others  what else it found wrong
    """

    def __init__(
        self, field: str, message: str, value: object = None, kind: str = "bad_input", others: Iterable[FieldError] = ()
    ) -> None:
        super().__init__(message)
        self.field, self.value, self.kind, self.others = field, value, kind, tuple(others)


def raise_all(found: Sequence[FieldError]) -> None:
    """Raise the first with the others behind it; nothing where there is none."""
    if found:
        first, *others = found
        raise FieldError(first.field, str(first), first.value, first.kind, others)


S = TypeVar("S", bound=Spec)


def build(spec: type[S], data: dict[str, Any], file: str) -> S:
    """`spec` from a mapping; raises InputError for all that is wrong, naming fields and what is accepted."""
    try:
        return spec.model_validate(data)
    except ValidationError as error:
        raise located(together(list(_translated(spec, error, file)))) from None


_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")  # of a Spec, of a dataclass


def _translated(spec: type[Spec], error: ValidationError, file: str) -> Iterator[InputError]:
    """Everything that is wrong: unknown keys first, since a typing error makes a missing key too."""
    details = error.errors(include_url=False, include_context=True)
    unknown = [detail for detail in details if detail["type"] in _UNKNOWN_KEY]
    if (schema := _of_another_kind(details)) is not None:
        details, unknown = [schema], []
    meant, seen, listed = set(), set(), set()
    for detail in unknown:
        *above, key = detail["loc"]
        accepted = _accepted_keys(spec, tuple(above))
        close = nearest(key, accepted)
        meant.add(_path((*above, close or "")))
        hint = "" if close is None and _path(tuple(above)) in listed else f"; {did_you_mean(key, accepted)}"
        listed |= {_path(tuple(above))} if close is None else set()
        yield InputError(f"unknown key{hint}", file=file, field=_path(detail["loc"]), kind="unknown_key")
    for detail in details:
        if detail in unknown or (detail["type"] == "missing" and _path(detail["loc"]) in meant):
            continue
        if detail["type"] == "too_short" and any(_is_item(other["loc"], detail["loc"]) for other in details):
            continue  # pydantic counts the items that are right
        for found in _errors_of(spec, detail, file):
            if found.field not in seen:  # each member of a union has something to say of one field
                seen.add(found.field)
                yield found


def _is_item(location: tuple[int | str, ...], of: tuple[int | str, ...]) -> bool:
    return len(location) > len(of) and location[: len(of)] == of


def _of_another_kind(details: list[ErrorDetails]) -> ErrorDetails | None:
    """Of a file of another kind, or of a form that nobody would know: that its schema is another one, and no more."""
    schema = next((d for d in details if d["loc"] == ("schema",)), None)
    if schema is None or schema["type"] != "missing":
        return schema
    strange = sum(d["type"] in _UNKNOWN_KEY and len(d["loc"]) == 1 for d in details)
    return schema if strange * 2 > len(schema["input"]) else None


def _errors_of(spec: type[Spec], detail: ErrorDetails, file: str) -> Iterator[InputError]:
    location = detail["loc"]
    field = _path(location)
    if detail["type"] == "missing":
        begins = typing.get_args(spec.model_fields["schema_"].annotation) if field == "schema" else ()
        text = f"is missing; such a file holds `schema: {begins[0]}`" if begins else "is missing and has no default"
        yield InputError(text, file=file, field=field, kind="missing_key")
        return
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        for each in (cause, *cause.others):
            within = _path((*location, *each.field.split(".")))
            yield InputError(str(each), file=file, field=within, value=each.value, kind=each.kind)
        return
    value = detail["input"] if not isinstance(detail["input"], dict) else None
    yield InputError(_message(detail["type"], detail["msg"], value), file=file, field=field or None, value=value)


# pydantic's words, where they are about Python rather than about the file.
_EXPECTED = {
    "int_type": "a whole number is expected",
    "int_from_float": "a whole number is expected",
    "int_parsing_size": "a whole number is expected",
    "float_type": "a number is expected",
    "finite_number": "a finite number is expected",
    "string_type": "a text is expected",
    "string_unicode": "a text is expected",
    "string_too_short": "a text is expected, not an empty one",
    "bool_type": "true or false is expected",
    "tuple_type": "a list is expected",
    "model_type": "a mapping is expected",
    "dict_type": "a mapping is expected",
}


def _message(kind: str, text: str, value: object) -> str:
    if kind in ("float_type", "int_type") and isinstance(value, str):
        return "a plain number is expected; the unit is part of the field's name"
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind == "greater_than_equal" and f"{SMALLEST:.12f}" in text:
        return f"should be greater than 0, and not below {SMALLEST:g}"
    text = text.removeprefix("Value error, ").replace("Tuple", "List").replace(" after validation", "")
    return (text[0].lower() + text[1:]).replace("input should", "should")


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def spec_of(spec: type[Spec], keys: Iterable[str]) -> type[Spec] | None:
    """The description that stands at a path of keys within another, or None where there is none."""
    found: type[Spec] | None = spec
    for key in keys:
        field = found.model_fields.get(key) if found is not None else None
        found = _model(field.annotation) if field is not None else None
    return found


def _accepted_keys(spec: type[Spec], location: tuple[int | str, ...]) -> list[str]:
    current: Any = spec
    for part in location:
        current = _element(current) if isinstance(part, int) else _child(current, part)
    if dataclasses.is_dataclass(current):
        return [f.name for f in dataclasses.fields(current)]
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
