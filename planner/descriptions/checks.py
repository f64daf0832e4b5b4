"""Checks of the descriptions against each other: what no single file can see."""

from __future__ import annotations

from ..strategy.errors import InputError, did_you_mean
from ..strategy.layout import ALL_TO_ALL, Parallelism
from ..strategy.op_kinds import KINDS
from .deployment import parse_layers
from .setup import Setup
from .weight_checks import check_weights


def check(setup: Setup) -> None:
    """Raise InputError for the first combination that cannot be."""
    _check_layers(setup)
    check_parallelism(setup, setup.parallelism)
    _check_executor(setup)
    check_weights(setup)
    _check_rules(setup)


def _check_layers(setup: Setup) -> None:
    loaded, layers = setup.deployment.loaded_layers, setup.model.num_hidden_layers
    if loaded is not None and loaded > layers:
        raise InputError(f"{setup.model.name} has {layers} layers", field="loaded_layers", value=loaded)


def check_parallelism(setup: Setup, p: Parallelism) -> None:
    """Raise InputError unless the setup's model and machine can be split like this."""
    _check_attention(setup, p)
    _check_experts(setup, p)


def _check_attention(setup: Setup, p: Parallelism) -> None:
    model, hardware = setup.model, setup.hardware
    if p.tp > hardware.num_devices:
        raise InputError(
            f"larger than the machine: {hardware.name} has {hardware.num_devices} devices",
            field="parallelism.tp",
            value=p.tp,
        )
    attn_tp = p.attn_tp
    if model.num_attention_heads % attn_tp:
        raise InputError(
            f"attn_tp {attn_tp} (tp {p.tp} / attn_dp {p.attn_dp}) does not divide num_attention_heads "
            f"{model.num_attention_heads}; accepted: {_divisors(model.num_attention_heads, hardware.num_devices)}",
            field="parallelism.tp",
            value=p.tp,
        )
    kv = model.num_key_value_heads
    if not model.is_mla and kv % attn_tp and attn_tp % kv:
        raise InputError(
            f"attn_tp {attn_tp} and num_key_value_heads {kv}: one must divide the other",
            field="parallelism.tp",
            value=p.tp,
        )
    for name in ("linear_num_key_heads", "linear_num_value_heads"):
        heads = getattr(model, name)
        if heads is not None and heads % attn_tp:
            raise InputError(f"attn_tp {attn_tp} does not divide {name} {heads}", field="parallelism.tp", value=p.tp)
    if model.intermediate_size is not None and (not model.is_moe or model.dense_layers):
        _divides(p.tp, model.intermediate_size, "intermediate_size")


def _check_experts(setup: Setup, p: Parallelism) -> None:
    model = setup.model
    if not model.is_moe:
        if p.ep > 1:
            raise InputError(f"{model.name} has no experts: use 1", field="parallelism.ep", value=p.ep)
        if p.moe_backend == ALL_TO_ALL:
            raise InputError(
                f"{model.name} has no experts: use tensor_parallel",
                field="parallelism.moe_backend",
                value=p.moe_backend,
            )
        return
    assert model.num_experts is not None and model.moe_intermediate_size is not None
    if model.num_experts % p.ep:
        raise InputError(f"does not divide num_experts {model.num_experts}", field="parallelism.ep", value=p.ep)
    if p.moe_backend == ALL_TO_ALL and p.ep != p.tp:
        raise InputError(
            f"with an all-to-all MoE every rank owns its experts: ep must equal tp {p.tp}",
            field="parallelism.ep",
            value=p.ep,
        )
    _divides(p.tp // p.ep, model.moe_intermediate_size, "moe_intermediate_size")
    if model.shared_expert_intermediate_size and p.moe_backend != ALL_TO_ALL:
        _divides(p.tp, model.shared_expert_intermediate_size, "shared_expert_intermediate_size")


def _divides(ranks: int, size: int, name: str) -> None:
    if size % ranks:
        raise InputError(f"{ranks} ranks do not divide {name} {size}", field="parallelism.tp", value=ranks)


def _divisors(number: int, limit: int) -> str:
    return ", ".join(str(n) for n in range(1, min(number, limit) + 1) if number % n == 0)


def _check_executor(setup: Setup) -> None:
    executor, model, hardware = setup.executor, setup.model, setup.hardware
    if executor.architectures is not None and model.architecture not in executor.architectures:
        raise InputError(
            f"{executor.name} has no adapter for {model.architecture}; plan_only gives costs and reports",
            field="executor",
            value=executor.name,
        )
    moe_backend = setup.parallelism.moe_backend
    if moe_backend not in executor.moe_backends:
        raise InputError(
            f"{executor.name} runs {', '.join(executor.moe_backends)} experts only",
            field="parallelism.moe_backend",
            value=moe_backend,
        )
    backend = executor.impls.get(hardware.backend)
    if backend is None or hardware.vendor not in backend.vendors:
        raise InputError(
            f"{executor.name} cannot use {hardware.backend} on {hardware.vendor}", field="hardware", value=hardware.name
        )
    if executor.asks_capability and hardware.compute_capability is None:
        raise InputError(
            f"{hardware.name} does not say it, and the limits of {executor.name} go by it; write it as in 9.0",
            field="hardware.compute_capability",
        )


def _check_rules(setup: Setup) -> None:
    numerics, layers = setup.deployment.numerics, setup.model.num_hidden_layers
    for kind in ("pin", "forbid"):
        for index, rule in enumerate(getattr(numerics, kind)):
            field = f"numerics.{kind}[{index}]"
            if rule.layers is not None and max(parse_layers(rule.layers)) >= layers:
                raise InputError(f"the model's layers are 0-{layers - 1}", field=f"{field}.layers", value=rule.layers)
            for mode in rule.modes or ():
                if mode not in setup.deployment.modes:
                    raise InputError(
                        f"the deployment has no such mode; {did_you_mean(mode, setup.deployment.modes)}",
                        field=f"{field}.modes",
                        value=mode,
                    )
            if rule.boundary is not None and rule.boundary not in KINDS[rule.op].boundaries:
                raise InputError(
                    f"{rule.op} has no place at {rule.boundary}; it belongs at {', '.join(KINDS[rule.op].boundaries)}",
                    field=f"{field}.boundary",
                    value=rule.boundary,
                )
            of_op = setup.executor.can.ops.get(rule.op)
            accepted = of_op.impls if of_op is not None else ()
            if rule.impl is not None and rule.impl not in accepted:
                raise InputError(
                    f"{setup.executor.name} has no such impl of {rule.op}; {did_you_mean(rule.impl, accepted)}",
                    field=f"{field}.impl",
                    value=rule.impl,
                )
            if kind == "pin" and rule.boundary is None:
                raise InputError("a pin names its boundary", field=f"{field}.boundary", kind="missing_key")
    if numerics.error_budget is not None and numerics.loosest != "quantized":
        raise InputError(
            f"means something only where quantised ops are allowed; loosest is {numerics.loosest}",
            field="numerics.error_budget",
            value=numerics.error_budget,
        )
