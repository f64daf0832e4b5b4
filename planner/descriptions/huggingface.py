"""A Hugging Face config.json as the fields of a commplan model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..strategy.architectures import STRUCTURAL, Architecture, every, known
from ..strategy.config_fields import attention
from ..strategy.config_json import ConfigJson
from ..strategy.errors import InputError, one_line
from .hub_cache import CONFIG, hub_name
from .model import MODEL_SCHEMA
from .quantization import quantization_fields


def model_fields(config: dict[str, Any], file: str, plain: str | None = None) -> dict[str, Any]:
    """The fields of a Model; raises InputError for an architecture without an adapter or a field that is missing.

    `plain` reads whatever architecture it is as a plain decoder: `dense`, or `moe`.
    """
    architecture = _named(config, file) if plain is None else _as_plain(config, plain)
    read = architecture.config(config, file)
    fields = read.read_by(architecture.read)
    _refuse_unread(read, architecture, plain)
    quantization = quantization_fields(read, fields["num_hidden_layers"])
    if quantization is not None:
        fields["quantization"] = quantization
    if taken := _defaults_taken(read, architecture):
        fields["assumed"] = [*fields.get("assumed", ()), taken]
    name = one_line(_name(Path(file)))
    return {"schema": MODEL_SCHEMA, "name": name, "architecture": architecture.name, **fields}


def _named(config: dict[str, Any], file: str) -> Architecture:
    names = config.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise InputError(
            "a Hugging Face config.json names one architecture; this file has neither that nor a commplan schema",
            file=file,
            field="architectures",
            value=names,
        )
    architecture = every().get(names[0])
    if architecture is None or architecture.refused is not None:
        why = None if architecture is None else architecture.refused
        raise InputError(
            why
            or f"this architecture is not supported; {'supported: ' + ', '.join(sorted(known()))}; for plan_only, "
            "`commplan import-model CONFIG --plain dense` (or moe) reads a plain decoder of another name",
            file=file,
            field="architectures",
            value=names[0],
            kind="unsupported_architecture",
        )
    return architecture


# ---- whatever architecture it is -------------------------------------------------------------------------------------


def _as_plain(config: dict[str, Any], plain: str) -> Architecture:
    """The reading of an unknown architecture: attention and a gated MLP or experts in every layer, and no more."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else "PlainDecoder"
    return Architecture(one_line(name), _plain_experts if plain == "moe" else _plain_dense)


def _plain_dense(config: ConfigJson) -> dict[str, Any]:
    inner = config.section("text_config")
    return attention(inner) | {"intermediate_size": inner.size("intermediate_size"), "assumed": [_PLAIN]}


def _plain_experts(config: ConfigJson) -> dict[str, Any]:
    inner = config.section("text_config")
    return attention(inner) | {
        "num_experts": inner.size_by("num_experts", "num_local_experts", "n_routed_experts"),
        "num_experts_per_tok": inner.size("num_experts_per_tok"),
        "moe_intermediate_size": inner.size_by("moe_intermediate_size", "intermediate_size"),
        "assumed": [_PLAIN],
    }


_PLAIN = "read as a plain decoder, by the names of its fields: nobody looked at its modules"


# ---- what was not read, what was not there ---------------------------------------------------------------------------


def _refuse_unread(config: ConfigJson, architecture: Architecture, plain: str | None) -> None:
    names = STRUCTURAL - set(architecture.apart)
    for section in (config, config.section("text_config")):
        for field, value in section.unread(names):
            how = "a plain decoder" if plain else architecture.name
            raise InputError(
                f"changes what is computed or sent, and the reading of {how} does not know it: set it to null where it "
                "does not matter, or write a model file with the sizes that come near (docs/models.md)",
                file=config.file,
                field=field,
                value=value,
            )


def _defaults_taken(config: ConfigJson, architecture: Architecture) -> str:
    for field in config.defaulted:
        if (misspelt := config.unread_like(field)) is not None:
            raise InputError(
                f"{architecture.model_type} has no such field, and {field} is left out: is that meant?",
                file=config.file,
                field=misspelt,
            )
    taken = ", ".join(f"{field} {value}" for field, value in sorted(config.defaulted.items()))
    return f"left out of the config.json, so transformers' defaults of {architecture.model_type}: {taken}" * bool(taken)


def _name(path: Path) -> str:
    """Of the model: as the Hub calls it, else as its folder or its file is called."""
    if (name := hub_name(path)) is not None:
        return name.partition("/")[2] or name
    if path.name != CONFIG:
        return path.stem
    return path.parent.name or path.absolute().parent.name or path.stem
