"""Checks of the weights' type: does the machine compute in it, the executor load it, and do shards keep its blocks?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..strategy.errors import InputError
from ..strategy.layout import Parallelism
from .setup import Setup
from .weight_types import WEIGHT_TYPES
from .weights import Matrix, matrices


def check_weights(setup: Setup) -> None:
    """Raise InputError for a type of weights that cannot be."""
    _check_rate(setup)
    _check_block(setup)
    _check_executor(setup)
    _check_blocks(setup)


def _check_rate(setup: Setup) -> None:
    compute, dtypes = setup.hardware.compute, setup.deployment.dtypes
    for weights in (setup.weights, setup.weights.other):
        rate = None if weights is None else weights.record.rate
        if weights is not None and rate is not None and getattr(compute, rate) is None:
            types = [name for name, known in WEIGHT_TYPES.items() if known.rate is None or getattr(compute, known.rate)]
            raise InputError(
                f"{setup.hardware.name} gives no {weights.dtype} rate; use a type it computes in: {', '.join(types)}",
                field="dtypes.weights",
                value=dtypes.weights,
            )


def _check_block(setup: Setup) -> None:
    dtypes = setup.deployment.dtypes
    if dtypes.weight_block is not None and not setup.weights.record.quantized:
        raise InputError(
            f"{dtypes.weights} weights have no scales: leave it out",
            field="dtypes.weight_block",
            value=list(dtypes.weight_block),
        )


def _check_executor(setup: Setup) -> None:
    executor, weights = setup.executor, setup.deployment.dtypes.weights
    if weights not in executor.weights.dtypes:
        raise InputError(
            f"executor {executor.name} loads {', '.join(executor.weights.dtypes)}{_because(executor.weights.reason)}; "
            "say dtypes.weights=bf16 for a checkpoint in bf16, or executor=plan_only for costs and reports",
            field="dtypes.weights",
            value=weights,
        )


def _because(reason: str | None) -> str:
    return f" ({reason})" if reason else ""


# ---- blocks ----------------------------------------------------------------------------------------------------------


def _check_blocks(setup: Setup) -> None:
    cut = next(_cut(setup, setup.parallelism), None)
    if cut is None:
        return
    weights, p = setup.weights.of(cut.part), setup.parallelism
    assert weights.block is not None
    local, block = (cut.rows, weights.block[0]) if cut.sharded == "rows" else (cut.columns, weights.block[1])
    ways = ", ".join(_ways_out(setup))
    raise InputError(
        f"{cut.ranks} ranks cut {cut.field} into shards of {local}, and {weights.dtype} weights have a scale for every "
        f"{weights.block[0]} x {weights.block[1]} block: {local} is no multiple of {block}; "
        f"{f'accepted: {ways}' if ways else 'no other tp or ep of this machine is accepted: use bf16 weights'}",
        field="parallelism.tp",
        value=p.tp,
    )


def _cut(setup: Setup, p: Parallelism) -> Iterator[Matrix]:
    """The quantised matrices whose shards under `p` are no whole blocks."""
    if not setup.weights.record.quantized:
        return
    for matrix in matrices(setup.model, p):
        weights = setup.weights.of(matrix.part)
        if matrix.plain or matrix.ranks == 1 or weights.block is None or not setup.weights.is_quantized(matrix.part):
            continue
        local, block = (
            (matrix.rows, weights.block[0]) if matrix.sharded == "rows" else (matrix.columns, weights.block[1])
        )
        if local % block:
            yield matrix


def _ways_out(setup: Setup) -> Iterator[str]:
    """Sizes that keep blocks whole: ep at this tp, then tp at this ep, the nearest first."""
    from .checks import can_split

    p = setup.parallelism
    trials = [("ep", ep, replace(p, ep=ep)) for ep in range(1, p.tp + 1) if p.tp % ep == 0]
    for tp in sorted(range(1, setup.hardware.num_devices + 1), key=lambda size: (abs(size - p.tp), size)):
        if tp % p.attn_dp == 0 and tp % p.ep == 0:
            trials.append(("tp", tp, replace(p, tp=tp)))
    for name, size, trial in trials:
        if trial == p or not can_split(setup, trial) or setup.executor.can.split_refusal(trial):
            continue
        if next(_cut(setup, trial), None) is None:
            yield f"{name} {size}"
