"""A program: the ops of one token range of one mode, bound. Built at start; a forward only looks one up."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from commplan.planner.strategy.file import FORWARD_MODES, IN_BOUNDARIES, Parallelism, RangePlan, StrategyFile, walk

from ..backends import Backend
from ..collectives.wire_sums import WireSum
from ..errors import RefusedError
from ..kernels.peer_impls import COMPOSED_IMPLS, PEER_IMPLS, STAGED_IMPLS
from ..ranks.groups import Groups
from .bound_ops import BoundIn, BoundOut, bind_in, bind_out
from .composed_sums import ComposedSum
from .counts import Count, Counters, Place, impl_of, wire_bytes_per_row
from .layouts import group_at, group_name_at
from .peer_pool import PeerPool
from .sizes import Sizes, rows_into


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
        return [b.count for b in self.bound if b.place.op.kind.runs]

    @property
    def bound(self) -> list[BoundIn | BoundOut]:
        """Every bound op, in the order of the forward."""
        found: list[BoundIn | BoundOut] = [self.embed_out]
        for layer in self.layers:
            found += [layer.attn_in, layer.attn_out, layer.mlp_in, layer.mlp_out]
        return [*found, self.head_in]

    def boundaries_of(self, impls: tuple[str, ...]) -> list[str]:
        """Every boundary with an op by one of the impls, once, as errors name it."""
        places = [bound.place for bound in self.bound]
        return list(dict.fromkeys(f"{p.boundary} ({p.op})" for p in places if p.op.impl in impls))

    def count_replay(self, p: Parallelism, sizes: Sizes) -> None:
        """Count a forward that ran as a graph, which itself counts nothing."""
        for count in self.counts:
            place = count.place
            count.calls += 1
            count.rows += rows_into(place.boundary, place.before, place.shape, p, sizes)


class Programs:
    """The programs of a plan: by mode, in the order of their ranges."""

    def __init__(self, by_mode: dict[str, tuple[Program, ...]]) -> None:
        self._by_mode = by_mode
        self._starts = {mode: [p.first for p in programs] for mode, programs in by_mode.items()}

    def check_mode(self, mode: str) -> None:
        """Raises RefusedError for a mode that the plan has no section for."""
        if mode not in self._by_mode:
            known = "is not a forward mode" if mode not in FORWARD_MODES else "has no section in the strategy file"
            raise RefusedError(
                f"{known}; it has {', '.join(self._by_mode)}. Add it to the deployment's modes and plan again",
                field="mode",
                value=mode,
            )

    def of(self, mode: str, tokens: int) -> Program:
        """The program of a forward; raises RefusedError where the plan has none."""
        self.check_mode(mode)
        programs = self._by_mode[mode]
        program = programs[bisect_right(self._starts[mode], tokens) - 1]
        if not program.first <= tokens <= program.last:
            first, last = programs[0].first, programs[-1].last
            way = "send fewer at once" if tokens > last else "send more at once"
            raise RefusedError(
                f"planned for {first} to {last} tokens; {way}, or plan again with "
                f"--set modes.{mode}.tokens=[1,{max(tokens, last)}]",
                field=f"modes.{mode}",
                value=tokens,
            )
        return program


@dataclass(frozen=True)
class Binder:
    """What the ops of a plan are bound to. `peers` holds what ranks share for it, if it needs any."""

    strategy: StrategyFile
    groups: Groups
    backend: Backend
    counters: Counters
    element_bytes: int
    peers: PeerPool | None = None

    def bind(self, mode: str, place: Place) -> BoundIn | BoundOut:
        """The op of a place, and what counts it."""
        op, model = place.op, self.strategy.model
        width = model.latent_width if op.kind.latent else model.hidden_size
        wire = wire_bytes_per_row(place, self.strategy, width, self.element_bytes)
        count = self.counters.of(mode, place, impl_of(op, self.strategy), wire)
        peers = None
        if op.impl in PEER_IMPLS:
            assert self.peers is not None
            peers = self.peers.of(group_name_at(place, self.groups.parallelism), width)
        if place.boundary in IN_BOUNDARIES:
            return bind_in(place, self.groups, self.backend, count, peers)
        return bind_out(place, self.groups, self.backend, count, peers, self._composed(place, width))

    def _composed(self, place: Place, width: int) -> ComposedSum | None:
        """What performs an op that is composed around whole messages; None where another does."""
        op = place.op
        if op.impl not in COMPOSED_IMPLS:
            return None
        assert op.algorithm is not None
        carrier = None
        if op.impl in STAGED_IMPLS:
            assert self.peers is not None
            name = group_name_at(place, self.groups.parallelism)
            if op.way.in_one_launch:
                return self.peers.one_shot_of(name, width)
            carrier = self.peers.carrier_of(name)
        group = group_at(place, self.groups)
        return WireSum(self.backend, group, op.wire, width, op.algorithm, op.pieces or 1, carrier)


def build_programs(
    strategy: StrategyFile,
    groups: Groups,
    backend: Backend,
    counters: Counters,
    element_bytes: int,
    peers: PeerPool | None = None,
) -> dict[str, tuple[Program, ...]]:
    """Programs by mode, in the order of their ranges."""
    binder = Binder(strategy, groups, backend, counters, element_bytes, peers)
    return {
        mode: tuple(_program(binder, mode, index, plan) for index, plan in enumerate(ranges))
        for mode, ranges in strategy.modes.items()
    }


def _program(binder: Binder, mode: str, index: int, plan: RangePlan) -> Program:
    bound = [
        binder.bind(mode, Place(layer, boundary, op, before, after, binder.strategy.layer_shape(layer or 0)))
        for layer, boundary, op, before, after in walk(binder.strategy, plan)
    ]
    layers = tuple(LayerProgram(*bound[i : i + 4]) for i in range(1, len(bound) - 1, 4))  # type: ignore[arg-type]
    return Program(mode, index, plan.first, plan.last, bound[0], layers, bound[-1])  # type: ignore[arg-type]
