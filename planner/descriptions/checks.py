"""Checks of the descriptions against each other: what no single file can see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..strategy.bounds import MAX_RANKS
from ..strategy.errors import InputError, did_you_mean
from ..strategy.layout import ALL_TO_ALL, Parallelism
from ..strategy.op_kinds import KINDS
from .deployment import parse_layers
from .placement import nodes_needed, ranks_per_node, stages_per_node
from .setup import Setup
from .weight_checks import check_weights

_MOST_SIZES = 1024  # that an error looks at


def check(setup: Setup) -> None:
    """Raise InputError for the first combination that cannot be."""
    _check_layers(setup)
    _check_split(setup)
    _check_executor(setup)
    check_weights(setup)
    _check_rules(setup)


def _check_layers(setup: Setup) -> None:
    loaded, layers = setup.deployment.loaded_layers, setup.model.num_hidden_layers
    if loaded is not None and loaded > layers:
        raise InputError(f"{setup.model.name} has {layers} layers", field="loaded_layers", value=loaded)
    if loaded is not None and setup.parallelism.pp > 1:
        raise InputError(
            "a stack for timing runs in one stage: leave it out, or use parallelism.pp 1",
            field="loaded_layers",
            value=loaded,
        )


def _check_split(setup: Setup) -> None:
    """The same as `check_parallelism`, and says which tp would do where tp is at fault."""
    try:
        check_parallelism(setup, setup.parallelism)
    except InputError as error:
        if error.field == "parallelism.tp":
            error.message += f"; accepted: {', '.join(map(str, _sizes(setup))) or 'no tp of this machine'}"
        raise


def _sizes(setup: Setup) -> Iterator[int]:
    """Every tp that all else of the deployment goes with; experts that were spread over all ranks stay so."""
    p = setup.parallelism
    for tp in range(1, min(setup.hardware.num_devices // p.pp, _MOST_SIZES) + 1):
        trial = replace(p, tp=tp, ep=tp if p.ep == p.tp > 1 else p.ep)
        if tp % trial.attn_dp == 0 and tp % trial.ep == 0 and can_split(setup, trial):
            yield tp


def can_split(setup: Setup, p: Parallelism) -> bool:
    """False where `check_parallelism` refuses it."""
    try:
        check_parallelism(setup, p)
    except InputError:
        return False
    return True


def check_parallelism(setup: Setup, p: Parallelism) -> None:
    """Raise InputError unless the setup's model and machine can be split like this."""
    _check_devices(setup, p)
    _check_attention(setup, p)
    _check_experts(setup, p)


def _check_devices(setup: Setup, p: Parallelism) -> None:
    hardware, layers = setup.hardware, setup.model.num_hidden_layers
    holds, nodes = hardware.devices_per_node, hardware.num_nodes
    if p.tp > hardware.num_devices:
        raise InputError(
            f"larger than the machine: {hardware.name} has {hardware.num_devices} devices",
            field="parallelism.tp",
            value=p.tp,
        )
    if p.tp > MAX_RANKS:
        raise InputError(f"up to {MAX_RANKS} ranks can be planned", field="parallelism.tp", value=p.tp)
    inside = ranks_per_node(p.tp, hardware)
    if inside is None:
        why = f"{p.tp} ranks do not spread evenly over {-(-p.tp // holds)} to {nodes} nodes of {holds} devices"
        raise InputError(why, field="parallelism.tp", value=p.tp)
    if inside % p.attn_tp and p.attn_tp % inside:
        raise InputError(
            f"DP groups of attn_tp {p.attn_tp} would lie across nodes of {inside} ranks, some of them and others not: "
            f"one must divide the other; accepted: {_dp_sizes(p, inside)}",
            field="parallelism.attn_dp",
            value=p.attn_dp,
        )
    if p.pp > layers:
        raise InputError(f"more stages than the {layers} layers", field="parallelism.pp", value=p.pp)
    if (needed := nodes_needed(p, hardware)) > nodes:
        share = stages_per_node(p.tp, hardware)
        each = f"a node of {holds} devices holds {share}" if share else f"each spans {needed // p.pp} nodes"
        most = share * nodes if share else nodes // (needed // p.pp)
        raise InputError(
            f"{p.pp} stages of {p.tp} ranks take {needed} nodes ({each}), and {hardware.name} has {nodes}; "
            f"accepted: up to {most}",
            field="parallelism.pp",
            value=p.pp,
        )


def _dp_sizes(p: Parallelism, inside: int) -> str:
    sizes = (dp for dp in range(1, p.tp + 1) if p.tp % dp == 0)
    return ", ".join(str(dp) for dp in sizes if inside % (p.tp // dp) == 0 or (p.tp // dp) % inside == 0)


def _check_attention(setup: Setup, p: Parallelism) -> None:
    model, attn_tp = setup.model, p.attn_tp
    if model.num_attention_heads % attn_tp:
        raise InputError(
            f"attn_tp {attn_tp} (tp {p.tp} / attn_dp {p.attn_dp}) does not divide num_attention_heads "
            f"{model.num_attention_heads}",
            field="parallelism.tp",
            value=p.tp,
        )
    for name in ("num_key_value_heads", "sliding_num_key_value_heads"):
        kv = getattr(model, name)
        if kv is not None and not model.is_mla and kv % attn_tp and attn_tp % kv:
            raise InputError(
                f"attn_tp {attn_tp} and {name} {kv}: one must divide the other", field="parallelism.tp", value=p.tp
            )
    for name in ("linear_num_key_heads", "linear_num_value_heads", "o_groups"):
        heads = getattr(model, name)
        if heads is not None and heads % attn_tp:
            raise InputError(f"attn_tp {attn_tp} does not divide {name} {heads}", field="parallelism.tp", value=p.tp)
    if model.intermediate_size is not None and (not model.is_moe or model.dense_layers):
        _divides(p, model.intermediate_size, "intermediate_size")


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
            "with an all-to-all MoE a row goes to the one rank that owns its expert: ep must equal tp "
            f"{p.tp}; experts split over tp / ep ranks need moe_backend tensor_parallel",
            field="parallelism.ep",
            value=p.ep,
        )
    if model.moe_intermediate_size % (p.tp // p.ep):
        fitting = (ep for ep in range(1, p.tp + 1) if p.tp % ep == 0 and model.num_experts % ep == 0)
        accepted = ", ".join(str(ep) for ep in fitting if model.moe_intermediate_size % (p.tp // ep) == 0)
        raise InputError(
            f"each expert is split over tp / ep = {p.tp // p.ep} ranks, which do not divide moe_intermediate_size "
            f"{model.moe_intermediate_size}; accepted: {accepted or 'none at this tp'}",
            field="parallelism.ep",
            value=p.ep,
        )
    if model.shared_expert_intermediate_size and p.moe_backend != ALL_TO_ALL:
        _divides(p, model.shared_expert_intermediate_size, "shared_expert_intermediate_size")


def _divides(p: Parallelism, size: int, name: str) -> None:
    if size % p.tp:
        raise InputError(f"{p.tp} ranks do not divide {name} {size}", field="parallelism.tp", value=p.tp)


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
            f"{executor.name} runs {', '.join(executor.moe_backends)} experts only; plan_only prices others",
            field="parallelism.moe_backend",
            value=moe_backend,
        )
    if why := executor.can.split_refusal(setup.parallelism):
        raise InputError(why[1], field=f"parallelism.{why[0]}", value=getattr(setup.parallelism, why[0]))
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
    for name in ("error_budget", "perplexity_budget"):
        if getattr(numerics, name) is not None and numerics.loosest != "quantized":
            raise InputError(
                f"means something only where quantised ops are allowed; loosest is {numerics.loosest}",
                field=f"numerics.{name}",
                value=getattr(numerics, name),
            )
    if numerics.perplexity_budget is not None:
        _check_perplexity_budget(setup, numerics.perplexity_budget)


def _check_perplexity_budget(setup: Setup, value: float) -> None:
    """It needs effects that were measured on this model, over as many ranks."""
    field, numerics, found = "numerics.perplexity_budget", setup.deployment.numerics, setup.sensitivity
    measure = "commplan sensitivity CHECKPOINT --text FILE -o FILE measures one"
    if numerics.error_budget is not None:
        why = "stands beside error_budget, and one plan keeps one budget: leave one of them out"
        raise InputError(why, field=field, value=value)
    if found is None:
        why = f"needs numerics.sensitivity, a file with effects on the model's loss; {measure}"
        raise InputError(why, field=field, value=value)
    if not found.formats or found.measured is None:
        why = f"{numerics.sensitivity} has weights alone, and no effects on the model's loss; {measure}"
        raise InputError(why, field=field, value=value)
    if found.measured.model != setup.fingerprints["model"]:
        why = f"{numerics.sensitivity} was measured on another model (fingerprint {found.measured.model}); {measure}"
        raise InputError(why, field=field, value=value)
    p = setup.parallelism
    for ranks, what in ((p.tp, "ranks"), (p.attn_tp, "ranks of attention")):
        if ranks != found.measured.ranks:
            why = f"{numerics.sensitivity} was measured over {found.measured.ranks} ranks, and here are {ranks} {what}"
            raise InputError(f"{why}; measure again with --ranks {ranks}", field=field, value=value)
