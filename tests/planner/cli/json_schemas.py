"""As much of JSON Schema as ours use, to hold files against them: no package for it is needed to plan or to test."""

from __future__ import annotations

import re
from typing import Any

KNOWN = {
    "$schema", "$defs", "$ref", "title", "description", "default", "type", "enum", "const", "anyOf", "properties",
    "required", "additionalProperties", "propertyNames", "items", "prefixItems", "minItems", "maxItems", "minLength",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minProperties", "maxProperties", "pattern",
}  # fmt: skip
TYPES: dict[str, Any] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def faults(value: Any, schema: Any, root: dict[str, Any], path: str = "") -> list[str]:
    """What a schema has against a value; a keyword that this file does not know is an error of the test."""
    if schema is True or schema == {}:
        return []
    assert set(schema) <= KNOWN, set(schema) - KNOWN
    found = []
    if "$ref" in schema:
        found += faults(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, path)
    if "anyOf" in schema and not any(not faults(value, each, root, path) for each in schema["anyOf"]):
        found += [f"{path}: {value!r} is none of anyOf"]
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(_is(value, kind) for kind in types):
        return [*found, f"{path}: {value!r} is no {types}"]
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{path}: {value!r} is none of {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{path}: {value!r} is not {schema['const']!r}")
    if isinstance(value, dict):
        found += _of_object(value, schema, root, path)
    if isinstance(value, list):
        found += _of_array(value, schema, root, path)
    if isinstance(value, str):
        found += [f"{path}: too short"] * (len(value) < schema.get("minLength", 0))
        found += [f"{path}: {value!r} does not match"] * (re.search(schema.get("pattern", ""), value) is None)
    if _is(value, "number"):
        found += [f"{path}: {value} out of bounds"] * (not _within(value, schema))
    return found


def _is(value: Any, kind: str) -> bool:
    if kind in ("number", "integer"):
        return isinstance(value, int if kind == "integer" else int | float) and not isinstance(value, bool)
    return isinstance(value, TYPES[kind])


def _within(value: float, schema: dict[str, Any]) -> bool:
    low, high = schema.get("minimum", value), schema.get("maximum", value)
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    return low <= value <= high and (above is None or value > above) and (below is None or value < below)


def _of_object(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any], path: str) -> list[str]:
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    found = [f"{path}: {key} is missing" for key in schema.get("required", []) if key not in value]
    for key, inner in value.items():
        where = f"{path}.{key}"
        if "propertyNames" in schema:
            found += faults(key, schema["propertyNames"], root, where)
        if key in properties:
            found += faults(inner, properties[key], root, where)
        elif others is False:
            found.append(f"{where}: unknown key")
        elif others is not True:
            found += faults(inner, others, root, where)
    if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value)):
        found.append(f"{path}: {len(value)} keys")
    return found


def _of_array(value: list[Any], schema: dict[str, Any], root: dict[str, Any], path: str) -> list[str]:
    found = []
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        found.append(f"{path}: {len(value)} items")
    first = schema.get("prefixItems", [])
    for index, item in enumerate(value):
        inner = first[index] if index < len(first) else schema.get("items", True)
        found += faults(item, inner, root, f"{path}[{index}]")
    return found
