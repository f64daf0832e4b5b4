"""Do plan, checkpoint, ranks and this runtime fit together? What does not is refused, with the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from commplan.planner.strategy_file import RangePlan, StrategyFile, config_fingerprint, places

from .errors import RefusedError

EXECUTOR_NAME = "transformers"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def read_config(checkpoint: str | Path) -> dict[str, Any]:
    """config.json of a checkpoint directory."""
    path = Path(checkpoint) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RefusedError(f"no readable config.json: {error}", file=str(path)) from None
    if not isinstance(config, dict):
        raise RefusedError("is not a mapping", file=str(path))
    return config


def architecture_of(config: dict[str, Any]) -> str:
    """The class that a config.json names."""
    names = config.get("architectures") or ["none"]
    return str(names[0])


def check_runnable(file: StrategyFile) -> None:
    """Can this runtime execute the file at all? Raises RefusedError; looks at no checkpoint and no machine."""
    if file.executor != EXECUTOR_NAME:
        raise RefusedError(
            f"this runtime executes plans made for executor {EXECUTOR_NAME}; make one with "
            f"commplan plan {file.deployment.name} --set executor={EXECUTOR_NAME}",
            field="executor",
            value=file.executor,
        )
    if file.deployment.activations not in DTYPES:
        raise RefusedError(
            f"this runtime computes in {', '.join(DTYPES)}; plan again with dtypes.activations set to one of them",
            field="deployment.activations",
            value=file.deployment.activations,
        )
    p = file.parallelism
    if p.ep not in (1, p.tp):
        raise RefusedError(
            f"this runtime spreads experts over 1 or all {p.tp} ranks; plan again with one of them",
            field="parallelism.ep",
            value=p.ep,
        )
    for mode, ranges in file.modes.items():
        for plan in ranges:
            _check_impls(file, f"modes.{mode} [{plan.first}, {plan.last}]", plan)


def _check_impls(file: StrategyFile, where: str, plan: RangePlan) -> None:
    for layer, boundary, op in places(plan):
        if op.impl is not None and op.impl != file.hardware.backend:
            at = boundary if layer is None else f"layer {layer} {boundary}"
            raise RefusedError(
                f"this runtime has no such impl of {op.name}; it has {file.hardware.backend}",
                field=f"{where} {at}: impl",
                value=op.impl,
            )


def check_model(file: StrategyFile, config: dict[str, Any]) -> None:
    """Is this the model that the plan was made for?"""
    if architecture_of(config) != file.model.architecture:
        raise RefusedError(
            f"the plan is for {file.model.architecture} ({file.model.name}); name that checkpoint, or plan again with "
            "`model:` set to this one's config.json",
            field="architectures",
            value=architecture_of(config),
        )
    found = config_fingerprint(config)
    if found != file.model.fingerprint:
        raise RefusedError(
            f"the plan is for another model ({file.model.name}, fingerprint {file.model.fingerprint}); "
            "plan again with `model:` set to this checkpoint's config.json",
            field="model.fingerprint",
            value=found,
        )
    if "quantization_config" in config:
        raise RefusedError(
            "quantised checkpoints are not supported yet; take one in bf16, fp16 or fp32", field="quantization_config"
        )


def check_world(file: StrategyFile, world: int) -> None:
    """Are these as many ranks as the plan has?"""
    tp = file.parallelism.tp
    if world != tp:
        raise RefusedError(
            f"this start has {world} rank{'s' if world > 1 else ''}; start as many as the plan has, with torchrun "
            f"--nproc-per-node {tp} or with commplan check / run, which spawn them, or plan again with "
            f"--set parallelism.tp={world}",
            field="parallelism.tp",
            value=tp,
        )
