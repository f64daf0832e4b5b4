"""A Hugging Face config.json as the fields of a commplan model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..strategy.architectures import known
from ..strategy.config_json import ConfigJson
from ..strategy.errors import InputError, one_line
from .model import MODEL_SCHEMA
from .quantization import quantization_fields


def model_fields(config: dict[str, Any], file: str) -> dict[str, Any]:
    """The fields of a Model; raises InputError for an architecture without an adapter or a field that is missing."""
    names = config.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise InputError(
            "a Hugging Face config.json names one architecture; this file has neither that nor a commplan schema",
            file=file,
            field="architectures",
            value=names,
        )
    architecture = known().get(names[0])
    if architecture is None:
        raise InputError(
            f"this architecture is not supported; {'supported: ' + ', '.join(sorted(known()))}",
            file=file,
            field="architectures",
            value=names[0],
            kind="unsupported_architecture",
        )
    read = ConfigJson(config, file)
    fields = read.read_by(architecture.read)
    quantization = quantization_fields(read, fields["num_hidden_layers"])
    if quantization is not None:
        fields["quantization"] = quantization
    path = Path(file)
    name = path.parent.name if path.name == "config.json" and path.parent.name else path.stem
    return {"schema": MODEL_SCHEMA, "name": one_line(name), "architecture": names[0], **fields}
