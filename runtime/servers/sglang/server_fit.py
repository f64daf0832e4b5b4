"""Do plan, SGLang and model fit together? What does not is refused, with the way out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from commplan.planner.strategy.file import (
    TOKEN_SHARDED,
    Op,
    RangePlan,
    StrategyFile,
    config_fingerprint,
    load,
    places,
    plan_again,
    walk,
)

from ...errors import RefusedError
from ...kernels.peer_impls import OUR_IMPLS, check_peer_ops
from .words import CAN, DTYPES, EXECUTOR, ONE_SHOT, SEAMS, TESTED_VERSIONS


def load_runnable(path: str | Path) -> StrategyFile:
    """The plan of a file, legal and made for this executor; raises InputError or RefusedError, with the file named."""
    file = load(path)
    try:
        check_plan(file)
    except RefusedError as error:
        raise error.in_file(str(path)) from None
    return file


def check_plan(file: StrategyFile) -> None:
    """Can this executor run the plan as written, whatever the server?"""
    if file.executor != EXECUTOR:
        raise RefusedError(
            f"SGLang executes plans made for executor {EXECUTOR}; make one with {plan_again(file, EXECUTOR)}",
            field="executor",
            value=file.executor,
        )
    if file.model.architecture not in SEAMS:
        raise RefusedError(
            f"has no seam in SGLang that is tested; those with one are {', '.join(SEAMS)}",
            field="model.architecture",
            value=file.model.architecture,
        )
    if file.model.role != "target":
        raise RefusedError(
            "draft models are not planned under SGLang; plan the target model",
            field="model.role",
            value=file.model.role,
        )
    if file.parallelism.moe_backend not in CAN.moe_backends:
        raise RefusedError(
            "completes the sum of the experts itself, which was never run under a plan; plan with "
            f"--set parallelism.moe_backend={CAN.moe_backends[0]}",
            field="parallelism.moe_backend",
            value=file.parallelism.moe_backend,
        )
    if file.parallelism.pp > 1:
        raise RefusedError(
            "gives a rank part of the layers, which was never run under a plan; plan with --set parallelism.pp=1",
            field="parallelism.pp",
            value=file.parallelism.pp,
        )
    for mode, ranges in file.modes.items():
        for plan in ranges:
            _check_ops(file, mode, f"modes.{mode} [{plan.first}, {plan.last}]", plan)
    check_peer_ops(file)


def _check_ops(file: StrategyFile, mode: str, where: str, plan: RangePlan) -> None:
    p = file.parallelism
    again = f"make a runnable plan with {plan_again(file, EXECUTOR)}"
    for layer, boundary, op in places(plan):
        if not op.kind.runs:
            continue
        at = f"{where} {boundary}" if layer is None else f"{where} layer {layer} {boundary}"
        accepted = CAN.ops_at(boundary, mode, p, file.model.architecture)
        if op.name not in accepted:
            names = ", ".join(accepted) or "nothing but none"
            raise RefusedError(f"SGLang runs {names} there; {again}", field=at, value=str(op))
        impls = _impls(file, mode, boundary, op)
        if (op.impl or file.hardware.backend) not in impls:
            raise RefusedError(
                f"SGLang has no such impl of {op.name} there; it has {', '.join(impls) or 'none'}; {again}",
                field=f"{at}: impl",
                value=op.impl or file.hardware.backend,
            )
    if p.attn_dp > 1 and p.attn_tp > 1:
        *_, (_, boundary, op, before, _) = walk(file, plan)
        if before is not None and before.hidden == TOKEN_SHARDED:
            raise RefusedError(
                "SGLang picks the rows that need logits from whole DP groups, so the last mlp_out must not leave a "
                f"shard; {again}",
                field=f"{where} {boundary}",
                value=str(op),
            )


def _impls(file: StrategyFile, mode: str, boundary: str, op: Op) -> list[str]:
    """Who performs an op here: the library of the machine where it has the op, and impls of SGLang's and of our own."""

    def has(impl: str) -> bool:
        if impl == file.hardware.backend:
            return True
        by, p, architecture = replace(op, impl=impl), file.parallelism, file.model.architecture
        ours = impl == ONE_SHOT or impl in OUR_IMPLS
        return ours and CAN.refusal(boundary, by, mode, "dense", p, architecture=architecture) is None

    return [impl for impl in CAN.ops[op.name].impls if has(impl)]


def check_version(version: str) -> None:
    """Is this an SGLang that the hooks were tested with?"""
    if version not in TESTED_VERSIONS:
        raise RefusedError(
            f"commplan's plugin is tested with SGLang {', '.join(TESTED_VERSIONS)}; install that one, or unset "
            "COMMPLAN_STRATEGY and use the flags of `commplan export sglang`",
            field="sglang",
            value=version,
        )


def check_model(file: StrategyFile, config: Mapping[str, Any], dtype: str, name: str) -> None:
    """Is this the model that the plan was made for, computing in its type? `dtype` as torch spells it."""
    found = (config.get("architectures") or ["none"])[0]
    if found != file.model.architecture:
        raise RefusedError(
            f"the plan is for {file.model.architecture} ({file.model.name}), {name} is another; name that checkpoint, "
            "or plan again with `model:` set to this one's config.json",
            field="architectures",
            value=found,
        )
    fingerprint = config_fingerprint(dict(config))
    if fingerprint != file.model.fingerprint:
        raise RefusedError(
            f"the plan is for another model ({file.model.name}, fingerprint {file.model.fingerprint}) than {name}; "
            "plan again with `model:` set to this checkpoint's config.json",
            field="model.fingerprint",
            value=fingerprint,
        )
    if DTYPES.get(dtype) != file.deployment.activations:
        raise RefusedError(
            f"the plan is for activations in {file.deployment.activations}; start with --dtype set to that, or plan "
            "again with --set dtypes.activations",
            field="--dtype",
            value=dtype,
        )
