"""A fit in words: the line under a plan, why something does not fit, and what would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..descriptions.checks import can_split
from ..descriptions.setup import Setup
from ..descriptions.weight_checks import check_weights
from ..strategy.errors import DoesNotFitError, InputError
from .verdict import Fit, fit

_GB = 1e9
_MOST_FRACTION = 0.95  # more is left to no server


def line(found: Fit) -> str:
    """One line: fits or not, GB by part, room for the KV cache, what the plan costs of it."""
    layers = "" if found.layers[0] == found.layers[1] else f" of {found.layers[0]} of {found.layers[1]} layers"
    if found.stage is not None:
        layers = f" of stage {found.stage[0]} of {found.stage[1]}, which has least room ({found.layers[0]} layers)"
    asked, kept = found.asked, gb(found.capacity - found.static)
    text = (
        f"Memory of a rank{layers}: {_verdict(found)} in {gb(found.capacity)} GB; weights {gb(found.weight_bytes)}, "
        f"KV cache {gb(found.cache)} ({asked.tokens:,} tokens of {asked.mode}), activations {gb(found.peak.plan)} "
        f"({kept} are kept for them); room for {found.kv_tokens_left:,} tokens of KV cache"
    )
    if found.kv_tokens_cost:
        more = "more" if found.kv_tokens_cost > 0 else "less"
        text += (
            f"; the plan holds {gb(abs(found.peak.plan - found.peak.plain))} GB {more} than plain all-reduce, "
            f"{abs(found.kv_tokens_cost):,} tokens"
        )
    return text


def _verdict(found: Fit) -> str:
    if found.fits:
        return "fits"
    if found.misses != "kv_cache" or 0 in found.most_tokens.values():
        return "does not fit"
    return "fits up to " + " and ".join(f"{most:,} tokens of {mode}" for mode, most in found.most_tokens.items())


def as_json(found: Fit) -> dict[str, object]:
    """The object under the key `memory` of `--json`: GB of a rank."""
    return {
        "fits": found.fits,
        "reason": reason(found) or None,
        "misses": found.misses,
        "capacity_gb": _round(found.capacity),
        "static_fraction": found.static_fraction,
        "kept_gb": _round(found.capacity - found.static),
        "weights_gb": _round(found.weight_bytes),
        "weights_by_part_gb": {part: _round(count) for part, count in found.weights.items()},
        "loaded_layers": found.layers[0],
        "stage": None if found.stage is None else list(found.stage),
        "kv_cache_gb": _round(found.cache),
        "kv_cache_asked_by": found.asked.mode,
        "kv_tokens_asked": found.asked.tokens,
        "kv_tokens_left": found.kv_tokens_left,
        "most_tokens": dict(found.most_tokens),
        "kv_bytes_per_token": found.token_bytes,
        "activations_gb": _round(found.peak.plan),
        "all_reduce_activations_gb": _round(found.peak.plain),
        "kv_tokens_cost": found.kv_tokens_cost,
    }


def _round(count: float) -> float:
    return round(count / _GB, 3)


def gb(count: float) -> str:
    """Bytes in GB, with more digits where there is less than a tenth of one."""
    return f"{count / _GB:.1f}" if count >= 0.1 * _GB or not count else f"{count / _GB:.4f}"


def reason(found: Fit) -> str:
    """What there is no room for, in figures; empty where everything fits."""
    if found.misses == "weights":
        static = found.static_fraction * found.capacity
        share = f"{found.static_fraction:g} of {gb(found.capacity)} GB, which weights and KV cache may fill"
        return f"does not fit: weights take {gb(found.weight_bytes)} GB of a rank, more than {gb(static)} GB ({share})"
    if found.misses == "activations":
        return (
            f"does not fit: activations and workspaces take {gb(found.peak.plan)} GB beside weights of "
            f"{gb(found.weight_bytes)} GB, and a device has {gb(found.capacity)} GB"
        )
    if found.misses == "kv_cache":
        asked = found.asked
        many = f"{asked.requests:,} request{'s' * (asked.requests != 1)}"
        return (
            f"does not fit: {asked.mode} asks for {asked.tokens:,} tokens of KV cache ({gb(found.cache)} GB, {many}), "
            f"and {gb(found.weight_bytes)} GB of weights leave room for {found.kv_tokens_left:,}"
        )
    return ""


def does_not_fit(setup: Setup, found: Fit) -> DoesNotFitError:
    """The error for a deployment that does not fit: the part, and the way out."""
    ways = "; or ".join(ways_out(setup, found))
    field = {"weights": "dtypes.weights", "activations": "limits", "kv_cache": f"modes.{found.asked.mode}"}
    assert found.misses is not None
    message = f"{reason(found)}; {ways}" if ways else f"{reason(found)}: take more or larger devices"
    return DoesNotFitError(message, file=setup.file, field=field[found.misses])


def ways_out(setup: Setup, found: Fit) -> Iterator[str]:
    """What would make it fit, as overrides."""
    needed = (found.weight_bytes + found.cache) / found.capacity
    rounded = -(-int(needed * 10_000) // 100) / 100
    if needed <= rounded <= _MOST_FRACTION and rounded * found.capacity <= found.capacity - found.peak.plan:
        yield f"limits.static_fraction={rounded:g} leaves activations enough"
    if found.misses == "kv_cache" and all(found.most_tokens.values()):
        yield " and ".join(f"end modes.{mode}.tokens at {most}" for mode, most in found.most_tokens.items())
    if found.misses == "activations":
        yield "end modes.prefill.tokens earlier"
        room = int((found.capacity - found.weight_bytes) / 1e8) / 10
        if room > 0 and setup.deployment.limits.activation_memory_gb is None:
            yield f"limits.activation_memory_gb={room:g} asks for a plan that keeps to what there is"
    if (tp := _enough_ranks(setup, found)) is not None:
        yield f"parallelism.tp={tp}"
    if (pp := _enough_stages(setup, found)) is not None:
        yield f"parallelism.pp={pp}"
    if found.misses == "weights" and (types := ", ".join(_smaller_types(setup, found))):
        yield f"a smaller type of weights, dtypes.weights: {types}"


def _smaller_types(setup: Setup, found: Fit) -> Iterator[str]:
    """Types of weights that the machine computes in, the executor loads and the device holds."""
    deployment = setup.deployment
    for name in setup.executor.weights.dtypes:
        dtypes = deployment.dtypes.model_copy(update={"weights": name})
        trial = replace(setup, deployment=deployment.model_copy(update={"dtypes": dtypes}))
        try:
            check_weights(trial)
        except InputError:
            continue
        if fit(trial, None, found.peak).misses != "weights":
            yield name


def _enough_ranks(setup: Setup, found: Fit) -> int | None:
    """The smallest larger tp of the machine that fits, activations taken as they are."""
    p = setup.deployment.parallelism
    size = p.tp * 2
    while size <= setup.hardware.num_devices:
        ep = size if p.ep == p.tp > 1 else p.ep
        if _would_fit(setup, found, {"tp": size, "ep": ep}):
            return size
        size *= 2
    return None


def _enough_stages(setup: Setup, found: Fit) -> int | None:
    """The same with more stages, where the executor has any."""
    size = setup.parallelism.pp * 2
    while setup.executor.pipeline and found.misses != "activations" and size <= setup.model.num_hidden_layers:
        if _would_fit(setup, found, {"pp": size}):
            return size
        size *= 2
    return None


def _would_fit(setup: Setup, found: Fit, split: dict[str, int]) -> bool:
    deployment = setup.deployment
    other = deployment.parallelism.model_copy(update=split)
    trial = replace(setup, deployment=deployment.model_copy(update={"parallelism": other}))
    if not can_split(trial, trial.parallelism):
        return False
    then = fit(trial, None, found.peak)
    return then.fits or (found.misses == "weights" and all(then.most_tokens.values()))
