"""A program: the ops of one token range of one mode, bound. Built at start; a forward only looks one up."""

from __future__ import annotations

from dataclasses import dataclass

from commplan.planner.strategy_file import RangePlan, StrategyFile, walk

from .backends import Backend
from .collectives import BoundIn, BoundOut, bind_in, bind_out
from .counters import Count, Counters, Place, impl_of, wire_bytes_per_row
from .groups import Groups


@dataclass(frozen=True, slots=True)
class LayerProgram:
    """The four bound ops of a layer."""

    attn_in: BoundIn
    attn_out: BoundOut
    mlp_in: BoundIn
    mlp_out: BoundOut


@dataclass(frozen=True, slots=True)
class Program:
    """The bound ops of a forward whose token count lies in [first, last]."""

    mode: str
    index: int
    first: int
    last: int
    embed_out: BoundOut
    layers: tuple[LayerProgram, ...]
    head_in: BoundIn

    @property
    def counts(self) -> list[Count]:
        """The counts of every place that runs something, in order."""
        bound: list[BoundIn | BoundOut] = [self.embed_out]
        for layer in self.layers:
            bound += [layer.attn_in, layer.attn_out, layer.mlp_in, layer.mlp_out]
        return [b.count for b in [*bound, self.head_in] if b.place.op.name not in ("none", "fused")]


def build_programs(
    strategy: StrategyFile, groups: Groups, backend: Backend, counters: Counters, element_bytes: int
) -> dict[str, tuple[Program, ...]]:
    """Programs by mode, in the order of their ranges."""
    return {
        mode: tuple(
            _program(strategy, mode, index, plan, groups, backend, counters, element_bytes)
            for index, plan in enumerate(ranges)
        )
        for mode, ranges in strategy.modes.items()
    }


def _program(
    strategy: StrategyFile,
    mode: str,
    index: int,
    plan: RangePlan,
    groups: Groups,
    backend: Backend,
    counters: Counters,
    element_bytes: int,
) -> Program:
    bound: list[BoundIn | BoundOut] = []
    for layer, boundary, op, before, after in walk(strategy, plan):
        place = Place(layer, boundary, op, before, after, strategy.layer_shape(layer or 0))
        width = strategy.model.latent_width if op.name == "latent_all_gather" else strategy.model.hidden_size
        wire = wire_bytes_per_row(place, strategy, width, element_bytes)
        count = counters.of(mode, place, impl_of(op, strategy), wire)
        bind = bind_in if boundary.endswith("_in") else bind_out
        bound.append(bind(place, groups, backend, count))
    layers = tuple(LayerProgram(*bound[i : i + 4]) for i in range(1, len(bound) - 1, 4))  # type: ignore[arg-type]
    return Program(mode, index, plan.first, plan.last, bound[0], layers, bound[-1])  # type: ignore[arg-type]
