"""Strict reading of YAML and JSON, canonical writing of YAML.

The reader takes a safe subset of YAML: mappings with unique string keys, sequences, scalars. No aliases (they can
explode), no tags (they can construct objects), no second document, no `yes`/`on`/`1:30` surprises: plain scalars
follow the YAML 1.2 core schema. The file is parsed as a stream of events by libyaml where it is present.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError, control_character
from .files import read_text

MAX_DEPTH = 40
_LONGEST_INT = 40

_INT = re.compile(r"[-+]?[0-9]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_SPECIAL_FLOAT = re.compile(r"[-+]?\.(inf|Inf|INF)\Z|\.(nan|NaN|NAN)\Z")
_CONSTANTS = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
}  # fmt: skip
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_mapping(path: str | Path, *, infinite: bool = False) -> dict[str, Any]:
    """Read a YAML or JSON file whose top level is a mapping; raises InputError naming file and field.

    `infinite` leaves Infinity and NaN of a JSON file as texts, which nobody takes for a number: files of others have
    them in fields that are not read.
    """
    text = read_text(path)
    try:
        value = parse_json(text, infinite=infinite) if str(path).endswith(".json") else parse_yaml(text)
        refuse_control_characters(value)
    except InputError as error:
        raise error.in_file(str(path)) from None
    if not isinstance(value, dict):
        kind = "empty file" if value is None else type(value).__name__
        raise InputError(f"the top level must be a mapping, found: {kind}", file=str(path))
    return value


def parse_yaml(text: str) -> Any:
    """The value of one YAML document in the safe subset described above."""
    try:
        events = yaml.parse(text, Loader=LOADER)
        next(events)  # stream start
        if isinstance(next(events), yaml.StreamEndEvent):
            return None
        value = _node(next(events), events, "", 0)
        next(events)  # document end
        if not isinstance(next(events), yaml.StreamEndEvent):
            raise InputError("more than one YAML document in the file")
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"not valid YAML{where}: {problem}", kind="syntax") from None
    except UnicodeEncodeError as error:  # of text that came by JSON
        raise InputError(f"not valid YAML: half a character at {error.start}", kind="syntax") from None
    return value


def parse_json(text: str, *, infinite: bool = False) -> Any:
    """The value of a JSON document; duplicate keys are refused, and NaN and Infinity, or left as texts."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in items:
            if key in result:
                raise InputError("duplicate key", field=key, kind="duplicate_key")
            result[key] = value
        return result

    def constant(name: str) -> str:
        if infinite:
            return name
        raise InputError(f"{name} is not a number that can be used", value=name)

    try:
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=constant, parse_int=_whole)
        _check_depth(value)
    except json.JSONDecodeError as error:
        raise InputError(
            f"not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}", kind="syntax"
        ) from None
    except RecursionError:
        raise InputError(f"nested deeper than {MAX_DEPTH} levels", kind="syntax") from None
    return value


def refuse_control_characters(value: Any, field: str = "") -> None:
    """Raise InputError where a text, or the name of a field, holds what a terminal would obey.

    Line breaks and tabs stand in descriptions, and are escaped where a line is printed.
    """
    if isinstance(value, str):
        _refuse_control(value, field, besides="\n\t")
    elif isinstance(value, dict):
        for key, item in value.items():
            where = f"{field}.{key}" if field else str(key)
            _refuse_control(key, where)
            if isinstance(item, str | dict | list):
                refuse_control_characters(item, where)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, str | dict | list):
                refuse_control_characters(item, f"{field}[{index}]")


def _refuse_control(text: str, field: str, besides: str = "") -> None:
    if (found := control_character(text, besides)) is not None:
        raise InputError(
            f"holds the control character {found}; plain text is expected",
            field=field or None,
            value=text,
            kind="control_character",
        )


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        if depth > MAX_DEPTH:
            raise InputError(f"nested deeper than {MAX_DEPTH} levels", kind="syntax")
        containers = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        level, depth = [child for container in containers for child in container], depth + 1


def _whole(digits: str) -> int | float:
    """Python refuses to read integers of thousands of digits; far below that they are floats here."""
    return int(digits) if len(digits) <= _LONGEST_INT else float(digits)


def _node(event: Any, events: Iterator[Any], path: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise InputError(f"nested deeper than {MAX_DEPTH} levels", field=path or None, kind="syntax")
    line = event.start_mark.line + 1
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        raise InputError(f"anchors and aliases are not accepted (line {line})", field=path or None, kind="alias")
    if event.tag is not None and event.tag != "!":
        raise InputError(f"tags are not accepted (line {line})", field=path or None, value=str(event.tag), kind="tag")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event.value) if event.implicit[0] else event.value
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Any] = []
        while not isinstance(child := next(events), yaml.SequenceEndEvent):
            items.append(_node(child, events, f"{path}[{len(items)}]", depth + 1))
        return items
    return _mapping(events, path, depth)


def _mapping(events: Iterator[Any], path: str, depth: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    while not isinstance(child := next(events), yaml.MappingEndEvent):
        line = child.start_mark.line + 1
        if not isinstance(child, yaml.ScalarEvent) or child.tag is not None or child.anchor is not None:
            raise InputError(f"keys must be plain names (line {line})", field=path or None)
        key = child.value
        field = f"{path}.{key}" if path else key
        if key in result:
            raise InputError(f"duplicate key (line {line})", field=field, kind="duplicate_key")
        if key == "<<":
            raise InputError(f"merge keys are not accepted (line {line})", field=path or None)
        result[key] = _node(next(events), events, field, depth + 1)
    return result


def _scalar(text: str) -> Any:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    first = text[0]
    if first.isdigit() or first in "+-.":
        if _INT.match(text):
            return _whole(text)
        if _FLOAT.match(text):
            return float(text)
        if _SPECIAL_FLOAT.match(text):
            return math.nan if "n" in text.lower().lstrip("+-.")[:1] else math.copysign(math.inf, -(first == "-") or 1)
    return text


# Other YAML readers take these plain scalars for something else (`1e5`, `0x1f`, `yes`, `1_000`): quoted when written.
_YAML_1_1 = re.compile(
    r"[-+]?[0-9][0-9_.:]*([eE][-+]?[0-9]+)?\Z|0[xob]|(y|n|yes|no|on|off)\Z|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}",
    re.IGNORECASE,
)
_PLAIN = re.compile(r"[A-Za-z_/0-9][A-Za-z0-9_./+-]*( [A-Za-z0-9_./+()=-]+)*\Z")


def scalar_text(value: object) -> str:
    """A scalar as canonical YAML: plain where that reads back as the same value, double-quoted otherwise."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return float_text(value)
    text = str(value)
    if _PLAIN.match(text) and _scalar(text) == text and not _YAML_1_1.match(text):
        return text
    return '"' + "".join(_escaped(c) for c in text) + '"'


def _escaped(character: str) -> str:
    code = ord(character)
    if character in '"\\':
        return "\\" + character
    if 0x20 <= code < 0x7F:
        return character
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def float_text(value: float) -> str:
    """A float that reads back as a float of the same value, without exponent tricks."""
    text = repr(float(value))
    if "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return text


def flow_text(value: object) -> str:
    """A value on one line: `{a: 1, b: [x, y]}`."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar_text(k)}: {flow_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow_text(v) for v in value) + "]"
    return scalar_text(value)
