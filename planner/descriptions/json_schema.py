"""JSON Schemas of descriptions, for editors: made from the classes that read the files, with what their docstrings say.

A schema knows one field at a time. What two fields say of each other is checked where the file is read.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from .base import Spec

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FIELD = re.compile(r"(\w+)(?:, (\w+))?  +(\S.*)\Z")


def json_schema(spec: type[Spec]) -> dict[str, Any]:
    """The schema of a file that `spec` reads."""
    found = spec.model_json_schema(by_alias=True)
    for name, definition in [(None, found), *found.get("$defs", {}).items()]:
        described = spec if name is None else _spec_of(name)
        if described is not None:
            _describe(definition, described)
    _without_titles(found)
    return found


def _spec_of(name: str) -> type[Spec] | None:
    waiting = list(Spec.__subclasses__())
    while waiting:
        spec = waiting.pop()
        if spec.__name__ == name:
            return spec
        waiting += spec.__subclasses__()
    return None


def _describe(schema: dict[str, Any], spec: type[Spec]) -> None:
    """Put what a docstring says of a field, as in `tp  ranks of a group`, to that field."""
    current: list[str] = []
    said: dict[str, str] = {}
    for line in (inspect.getdoc(spec) or "").splitlines():
        if (match := _FIELD.match(line)) is not None:
            current = [name for name in match.groups()[:2] if name in schema.get("properties", {})]
            said |= dict.fromkeys(current, match[3])
        elif current and line.startswith("  "):
            said |= {name: f"{said[name]} {line.strip()}" for name in current}
        else:
            current = []
    for name, text in said.items():
        schema["properties"][name].setdefault("description", text)


def _without_titles(schema: Any) -> None:
    """Remove the titles that pydantic makes of names."""
    if isinstance(schema, list):
        for item in schema:
            _without_titles(item)
    elif isinstance(schema, dict):
        if isinstance(schema.get("title"), str):
            del schema["title"]
        for key, value in schema.items():
            if key in ("properties", "$defs", "patternProperties"):
                for inner in value.values():
                    _without_titles(inner)
            elif key not in ("enum", "const", "default", "required"):
                _without_titles(value)
