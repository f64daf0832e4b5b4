"""The fingerprint of a model: a hash of what its config.json says of its structure, whatever the model is called.

Planner and runtime compute it from different objects, so it is defined on plain fields without defaults or names.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ..architectures import known

# The quantisation of a checkpoint is none of its structure: a copy of it in another type is the same model. Nor are the
# layers that draft for it: runtimes load checkpoints without them.
_NOT_STRUCTURE = ("schema", "schema_", "name", "source", "assumed", "quantization", "num_nextn_predict_layers")


def fields_fingerprint(fields: dict[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of the structural fields, in canonical JSON."""
    kept = {key: _plain(value) for key, value in fields.items() if key not in _NOT_STRUCTURE and value}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def config_fingerprint(config: dict[str, Any]) -> str | None:
    """The fingerprint of a Hugging Face config.json, or None for an architecture that commplan does not know."""
    names, architecture = config.get("architectures"), None
    if isinstance(names, list) and len(names) == 1 and isinstance(names[0], str):
        architecture = known().get(names[0])
    if architecture is None:
        return None
    return fields_fingerprint({"architecture": architecture.name, **architecture.read(architecture.config(config))})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
