"""Is a strategy file legal? Walks every range from embed_out to head_in with the layout algebra. No hardware needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from ..layout import LAYER_BOUNDARIES, IllegalOpError, State, apply, numerics_class
from ..ops import Op, numerics_rank
from .document import RangePlan, StrategyFile


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that makes a file illegal. `line` is that of the field in the file, once a file is looked at."""

    field: str
    value: str
    reason: str
    line: int | None = None


def problems(strategy: StrategyFile) -> Iterator[Problem]:
    """Everything illegal in a file: one problem per range at most for its layouts, since what follows depends on it."""
    for mode, ranges in strategy.modes.items():
        yield from _range_problems(mode, ranges)
        for index, plan in enumerate(ranges):
            yield from _walk(strategy, f"modes.{mode}[{index}]", plan)


def _range_problems(mode: str, ranges: tuple[RangePlan, ...]) -> Iterator[Problem]:
    for index, (before, after) in enumerate(pairwise(ranges), start=1):
        if after.first != before.last + 1:
            kind = "overlaps" if after.first <= before.last else "leaves a gap after"
            yield Problem(
                f"modes.{mode}[{index}].tokens",
                f"[{after.first}, {after.last}]",
                f"{kind} [{before.first}, {before.last}]; the next range starts at {before.last + 1}",
            )


def places(plan: RangePlan) -> Iterator[tuple[int | None, str, Op]]:
    """Layer (None outside the layers), boundary and op, in the order of the forward."""
    yield None, "embed_out", plan.embed_out
    for layer, ops in enumerate(plan.layers):
        for boundary in LAYER_BOUNDARIES:
            yield layer, boundary, ops.at(boundary)
    yield None, "head_in", plan.head_in


def field_of(plan: str, layer: int | None, boundary: str) -> str:
    """The field of an op, within that of its range."""
    return f"{plan}.{boundary}" if layer is None else f"{plan}.layers.{layer}.{boundary}"


def walk(strategy: StrategyFile, plan: RangePlan) -> Iterator[tuple[int | None, str, Op, State | None, State]]:
    """Layer, boundary, op and the states around it; raises IllegalOpError at the first op that does not connect."""
    state: State | None = None
    for layer, boundary, op in places(plan):
        before = state
        state = apply(boundary, op, before, strategy.layer_shape(layer or 0), strategy.parallelism)
        yield layer, boundary, op, before, state


def _walk(strategy: StrategyFile, field: str, plan: RangePlan) -> Iterator[Problem]:
    state: State | None = None
    for layer, boundary, op in places(plan):
        where = field_of(field, layer, boundary)
        yield from _local_problems(strategy, where, layer, boundary, op)
        try:
            state = apply(boundary, op, state, strategy.layer_shape(layer or 0), strategy.parallelism)
        except IllegalOpError as error:
            yield Problem(where, str(op), str(error))
            return


def _local_problems(strategy: StrategyFile, where: str, layer: int | None, boundary: str, op: Op) -> Iterator[Problem]:
    numerics = numerics_class(boundary, op, strategy.parallelism)
    if numerics_rank(numerics) > numerics_rank(strategy.numerics):
        yield Problem(where, str(op), f"is {numerics}, looser than the {strategy.numerics} that the file allows")
    if boundary == "embed_out" and op.residual is not None:
        yield Problem(where, str(op), "there is no residual yet: leave `residual` out")
    if not op.kind.latent:
        return
    producer = "embed_out" if layer == 0 else f"{(layer or 0) - 1}.mlp_out"
    written = f"{(layer or 0) - 1}.mlp_out" if op.producer == "previous.mlp_out" and layer else op.producer
    if written != producer:
        yield Problem(where, str(op), f"`from` must name the boundary that made the shard: {producer}")
