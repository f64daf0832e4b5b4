"""The JSON Schema of strategy files, for editors: keys and words, from the records that the reader goes by.

What needs more than one place to see (do layers connect? is each layer there once?) is for `commplan validate`.
"""

from __future__ import annotations

from typing import Any

from ..layout import LAYER_BOUNDARIES
from ..op_kinds import KINDS
from ..op_record import OpKind
from ..ops import MAX_PIECES
from ..words import FORWARD_MODES, GROUPS, MODEL_ROLES, MOE_BACKENDS, NUMERICS_CLASSES, RESIDUAL_RULES
from .document import STRATEGY_SCHEMA
from .reading import KEYS, PREDICTED_KEYS

_Schema = dict[str, Any]
_TEXT: _Schema = {"type": "string", "minLength": 1}
_COUNT: _Schema = {"type": "integer", "minimum": 1}
_TOKENS: _Schema = {"type": "array", "items": _COUNT, "minItems": 2, "maxItems": 2, "description": "[min, max]"}
_LAYERS: _Schema = {
    "description": "7, 0-60 or 0-2,5",
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": "^[0-9]+(-[0-9]+)?(, *[0-9]+(-[0-9]+)?)*$"},
    ],
}


def strategy_schema() -> _Schema:
    """Of a whole file."""
    op = {"$ref": "#/$defs/Op"}
    run = _object({"layers": _LAYERS, **dict.fromkeys(LAYER_BOUNDARIES, op)}, ("layers",))
    predicted = {"type": "object", "propertyNames": {"enum": list(PREDICTED_KEYS)}}
    layers = {"type": "array", "minItems": 1, "items": run}
    plan = {"tokens": _TOKENS, "embed_out": op, "layers": layers, "head_in": op, "predicted": predicted}
    ranges = {"type": "array", "minItems": 1, "items": _object(plan, ("tokens", "layers"))}
    sections = {
        "schema": {"const": STRATEGY_SCHEMA},
        "model": _model(),
        "hardware": _texts("name", "backend", "fingerprint"),
        "deployment": _texts("name", "activations", "fingerprint"),
        "overrides": {"type": "object", "description": "fields that --set gave when it was planned"},
        "executor": _TEXT,
        "parallelism": _object(
            {"tp": _COUNT, "attn_dp": _COUNT, "ep": _COUNT, "moe_backend": {"enum": list(MOE_BACKENDS)}}
        ),
        "numerics": {"enum": list(NUMERICS_CLASSES)},
        "modes": {"type": "object", "minProperties": 1, "propertyNames": {"enum": list(FORWARD_MODES)},
                  "additionalProperties": ranges},
        "end": {"const": True, "description": "the last line: a file without it is truncated"},
    }  # fmt: skip
    required = tuple(key for key in KEYS if key != "overrides")
    return {**_object({key: sections[key] for key in KEYS}, required), "$defs": {"Op": _op()}}


def _model() -> _Schema:
    fields = {
        "name": _TEXT,
        "role": {"enum": list(MODEL_ROLES)},
        "architecture": _TEXT,
        "num_hidden_layers": _COUNT,
        "hidden_size": _COUNT,
        "latent_width": {"type": "integer", "minimum": 0},
        "fingerprint": _TEXT,
    }
    return _object(fields | {"moe_layers": _LAYERS, "residual_streams": _COUNT}, tuple(fields))


def _op() -> _Schema:
    """An op is a name, or a mapping of one name to its parameters."""
    bare = [name for name, kind in KINDS.items() if not kind.algorithms]
    spelled = {name: _parameters(kind) for name, kind in KINDS.items()}
    return {
        "anyOf": [
            {"enum": bare},
            {**_object(spelled, ()), "minProperties": 1, "maxProperties": 1},
        ]
    }


def _parameters(kind: OpKind) -> _Schema:
    ranks = {"enum": list(GROUPS)}
    columns = sorted({group for wire in kind.formats for group in kind.groups_of(wire.name)}, key=str)
    words = {
        "algorithm": {"enum": list(kind.known_algorithms)},
        "wire": {"enum": list(dict.fromkeys(wire.name for wire in kind.formats))},
        "over": ranks,
        "group": {"enum": columns, "description": "columns of a scale"} if "over" in kind.parameters else ranks,
        "residual": {"enum": list(RESIDUAL_RULES)},
        "pieces": {"type": "integer", "minimum": 1, "maximum": MAX_PIECES},
    }
    fields = {name: words.get(name, _TEXT) for name in kind.parameters}
    found = _object(fields, ("algorithm",) if kind.algorithms else ())
    return found if kind.algorithms else {**found, "type": ["object", "null"]}


def _texts(*names: str) -> _Schema:
    return _object(dict.fromkeys(names, _TEXT))


def _object(properties: _Schema, required: tuple[str, ...] | None = None) -> _Schema:
    """A mapping of these keys and no others; all of them must be there unless said otherwise."""
    needed = list(properties if required is None else required)
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}
