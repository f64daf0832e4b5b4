"""A Hugging Face config.json as the fields of a commplan model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..strategy.architectures import known
from ..strategy.config_json import ConfigJson
from ..strategy.errors import InputError, one_line
from .hub_cache import CONFIG, hub_name
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
    return {"schema": MODEL_SCHEMA, "name": one_line(_name(Path(file))), "architecture": names[0], **fields}


def _name(path: Path) -> str:
    """Of the model: as the Hub calls it, else as its folder or its file is called."""
    if (name := hub_name(path)) is not None:
        return name.partition("/")[2] or name
    if path.name != CONFIG:
        return path.stem
    return path.parent.name or path.absolute().parent.name or path.stem
