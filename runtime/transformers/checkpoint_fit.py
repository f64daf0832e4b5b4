"""Do plan, checkpoint, ranks and this runtime fit together? What does not is refused, with the way out.

Imports no torch, so that the command line refuses before it starts any rank.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from commplan.planner.strategy.file import (
    InputError,
    StrategyFile,
    config_fingerprint,
    places,
    plan_again,
    problems,
    read_mapping,
)

from ..errors import RefusedError
from ..kernels.peer_impls import CAN, EXECUTOR_NAME, OUR_IMPLS, check_peer_ops
from .models import Adapter, adapter_for

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
"""Activations as files spell them, and as torch does."""


_OF_PLANS = ("model.fingerprint", "model.num_hidden_layers", "model.hidden_size")  # fields of the strategy file


def check_fit(file: StrategyFile, checkpoint: str | Path) -> tuple[dict[str, Any], Adapter]:
    """config.json and adapter of a checkpoint that a file can be executed on; raises RefusedError."""
    check_runnable(file)
    config = read_config(checkpoint)
    path = str(Path(checkpoint) / "config.json")
    try:
        adapter = adapter_for(_architecture(config))
        _check_model(file, config)
        _check_model_type(adapter, config)
    except (InputError, RefusedError) as error:
        raise error if error.field in _OF_PLANS else error.in_file(path) from None
    return config, adapter


def check_runnable(file: StrategyFile) -> None:
    """Can this runtime execute the file at all? Raises RefusedError; looks at no checkpoint and no machine."""
    if file.executor != EXECUTOR_NAME:
        raise RefusedError(
            f"this runtime executes plans made for executor {EXECUTOR_NAME}; make one with "
            f"{plan_again(file, EXECUTOR_NAME)}",
            field="executor",
            value=file.executor,
        )
    if file.deployment.activations not in DTYPES:
        raise RefusedError(
            f"this runtime computes in {', '.join(DTYPES)}; plan again with --set dtypes.activations=bf16",
            field="deployment.activations",
            value=file.deployment.activations,
        )
    p = file.parallelism
    if p.ep not in (1, p.tp):
        raise RefusedError(
            f"this runtime spreads experts over 1 or all {p.tp} ranks; plan again with --set parallelism.ep={p.tp}",
            field="parallelism.ep",
            value=p.ep,
        )
    if p.pp > 1:
        raise RefusedError(
            "this runtime loads all layers on every rank, and hands no stream on to another stage; plan again with "
            "--set parallelism.pp=1",
            field="parallelism.pp",
            value=p.pp,
        )
    for problem in problems(file):
        raise RefusedError(problem.reason, field=problem.field, value=problem.value)
    _check_impls(file)
    check_peer_ops(file)


def check_same_weights(loaded: StrategyFile, other: StrategyFile) -> None:
    """Can another plan be executed on the weights that were loaded for one? Raises RefusedError."""
    for field, mine, theirs in (
        ("model.fingerprint", loaded.model.fingerprint, other.model.fingerprint),
        ("parallelism", loaded.parallelism, other.parallelism),
        ("deployment.activations", loaded.deployment.activations, other.deployment.activations),
    ):
        if mine != theirs:
            raise RefusedError(
                f"the loaded weights are for {mine}; load the model anew", field=field, value=str(theirs)
            )


def _check_impls(file: StrategyFile) -> None:
    backend = file.hardware.backend
    for mode, ranges in file.modes.items():
        for index, plan in enumerate(ranges):
            for layer, boundary, op in places(plan):
                where = boundary if layer is None else f"layers.{layer}.{boundary}"
                if op.kind.is_collective and op.name not in CAN.ops:
                    raise RefusedError(
                        f"{CAN.cannot_run(op.name)}; plan again for this executor",
                        field=f"modes.{mode}[{index}].{where}",
                        value=str(op),
                    )
                by_library = op.impl in (None, backend)
                if by_library and op.kind.is_collective and backend not in CAN.ops[op.name].impls:
                    raise RefusedError(
                        f"{backend} alone does not perform {op.name}; name an impl that does "
                        f"({', '.join(CAN.ops[op.name].impls)}), or plan again for this executor",
                        field=f"modes.{mode}[{index}].{where}",
                        value=str(op),
                    )
                if by_library or op.impl in OUR_IMPLS:
                    continue
                raise RefusedError(
                    f"this runtime performs {op.name} by {backend} alone, or by collectives of our own "
                    f"({', '.join(OUR_IMPLS)}); plan again for this executor, or leave `impl` out",
                    field=f"modes.{mode}[{index}].{where}.impl",
                    value=op.impl,
                )


def read_config(checkpoint: str | Path) -> dict[str, Any]:
    """config.json of a checkpoint directory."""
    path = Path(checkpoint) / "config.json"
    try:
        return read_mapping(path)
    except InputError as error:
        reason = f"{error.message}; a Hugging Face checkpoint directory is expected"
        raise RefusedError(reason, file=str(path), field=error.field, value=error.value) from None


def text_of(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config.json that is about text: all of it but for models with images."""
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def _architecture(config: dict[str, Any]) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else "none"


def _check_model(file: StrategyFile, config: dict[str, Any]) -> None:
    model, again = file.model, "plan again with `model:` set to this checkpoint's config.json"
    if _architecture(config) != model.architecture:
        raise RefusedError(
            f"the plan is for {model.architecture} ({model.name}); {again}",
            field="architectures",
            value=_architecture(config),
        )
    found = config_fingerprint(config)
    if found != model.fingerprint:
        raise RefusedError(
            f"the plan is for another model ({model.name}, fingerprint {model.fingerprint}); {again}",
            field="model.fingerprint",
            value=found,
        )
    text = text_of(config)
    for field in ("num_hidden_layers", "hidden_size"):
        if text.get(field) != getattr(model, field):
            raise RefusedError(
                f"the checkpoint has {text.get(field)}, though the fingerprint is its own; {again}",
                field=f"model.{field}",
                value=getattr(model, field),
            )
    if any(
        part.get("quantization_config") is not None for part in (config, text)
    ):  # null is a field left out, as everywhere in a config.json
        raise RefusedError(
            "quantised checkpoints are not supported yet; take one in bf16, fp16 or fp32", field="quantization_config"
        )


def _check_model_type(adapter: Adapter, config: dict[str, Any]) -> None:
    """transformers goes by `model_type`, whatever the architecture: another one is another model, or code to fetch."""
    found = config.get("model_type")
    if found != adapter.model_type:
        raise RefusedError(
            f"{adapter.architecture} is loaded as transformers' model type {adapter.model_type} alone; take a "
            "checkpoint of that type",
            field="model_type",
            value="none" if found is None else found,
        )


def check_world(file: StrategyFile, world: int) -> None:
    """Are these as many ranks as the plan has? Raises RefusedError."""
    tp = file.parallelism.tp
    if world != tp:
        raise RefusedError(
            f"this start has {world} rank{'s' if world > 1 else ''}; start as many as the plan has, with torchrun "
            f"--nproc-per-node {tp} or with commplan check / run, which spawn them, or plan again with "
            f"--set parallelism.tp={world}",
            field="parallelism.tp",
            value=tp,
        )
