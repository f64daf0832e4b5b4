"""The layered graph of one forward mode: which ops may stand at which boundary, between which layouts.

A node is a boundary with the layouts of both streams; an edge is an op with its impl. The graph does not depend on the
token count (a memory limit alone removes edges at some counts), and equal layers share one LayerGraph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import sqrt

from ..cost.terms import Term
from ..descriptions.setup import Setup
from ..strategy.errors import NoLegalPlanError
from ..strategy.layout import LAYER_BOUNDARIES, LayerShape, State
from ..strategy.ops import Op
from ..strategy.words import AttentionKind, MlpKind, Numerics
from .damage import ERROR_UNIT, Classes, Damage, SquaredErrors


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """An op at a boundary, between two states. `squared_error` is e_b^2 in units of 1 / ERROR_UNIT."""

    boundary: str
    op: Op
    before: State | None
    after: State
    terms: tuple[Term, ...]
    numerics: Numerics
    rank: int
    squared_error: int
    shape: LayerShape


@dataclass(frozen=True, slots=True)
class Rejection:
    """An offered op that may not stand at a boundary, and why; `by_policy`: the deployment's numerics keep it away."""

    op: Op
    reason: str
    before: State | None
    by_policy: bool = False


Boundary = dict[State | None, tuple[Edge, ...]]


@dataclass(frozen=True, eq=False)
class LayerGraph:
    """The four boundaries of a kind of layer: edges by the state they start from."""

    key: tuple[object, ...]
    boundaries: dict[str, Boundary]
    attention_kind: AttentionKind
    mlp_kind: MlpKind
    shape: LayerShape


@dataclass(frozen=True)
class ForwardGraph:
    """A whole forward: embed_out, one LayerGraph per layer, head_in."""

    setup: Setup
    mode: str
    embed_out: Boundary
    layers: tuple[LayerGraph, ...]
    head_in: Boundary
    damage: Damage = field(default_factory=SquaredErrors)  # of quantised sums, in the unit of the budget

    @cached_property
    def classes(self) -> Classes:
        """By which ways through a layer are compared, for all layers that share it."""
        return Classes(self.damage, self.edges)

    @cached_property
    def reached(self) -> dict[int, set[State | None]]:
        """The states in which forwards enter a boundary, by the id of its dict: no search needs its other edges."""
        found: dict[int, set[State | None]] = {}
        for _, boundary, states in _walk(self):
            found.setdefault(id(boundary), set()).update(states)
        return found

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Every distinct edge."""
        found = [edge for edges in (*self.embed_out.values(), *self.head_in.values()) for edge in edges]
        for layer in dict.fromkeys(self.layers):
            found += [e for boundary in layer.boundaries.values() for edges in boundary.values() for e in edges]
        return tuple(dict.fromkeys(found))


def without_impls(graph: ForwardGraph) -> ForwardGraph:
    """The graph with the ops of the machine's library alone."""

    def kept(boundary: Boundary) -> Boundary:
        return {before: tuple(e for e in edges if e.op.impl is None) for before, edges in boundary.items()}

    layers = {
        layer: replace(layer, boundaries={name: kept(found) for name, found in layer.boundaries.items()})
        for layer in dict.fromkeys(graph.layers)
    }
    return replace(
        graph,
        embed_out=kept(graph.embed_out),
        layers=tuple(layers[layer] for layer in graph.layers),
        head_in=kept(graph.head_in),
    )


@dataclass(frozen=True)
class Plan:
    """The ops of one forward: the edges of embed_out, of every layer, of head_in."""

    embed_out: Edge
    layers: tuple[tuple[Edge, ...], ...]
    head_in: Edge

    @classmethod
    def of(cls, edges: Sequence[Edge]) -> Plan:
        """The plan of all its edges in the order of the forward."""
        step = len(LAYER_BOUNDARIES)
        layers = tuple(tuple(edges[i : i + step]) for i in range(1, len(edges) - 1, step))
        return cls(edges[0], layers, edges[-1])

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All edges in the order of the forward."""
        return (self.embed_out, *(edge for layer in self.layers for edge in layer), self.head_in)

    @cached_property
    def counted(self) -> tuple[tuple[Edge, int], ...]:
        """Distinct edges with how often each occurs."""
        return tuple(Counter(self.edges).items())

    @cached_property
    def steps(self) -> tuple[tuple[tuple[Edge, ...], tuple[int, ...]], ...]:
        """Distinct steps through layers, each with the layers that take it."""
        found: dict[tuple[Edge, ...], list[int]] = {}
        for layer, edges in enumerate(self.layers):
            found.setdefault(edges, []).append(layer)
        return tuple((edges, tuple(layers)) for edges, layers in found.items())

    @property
    def num_quantised(self) -> int:
        """Boundaries whose op loses information."""
        return sum(edge.op.kind.is_quantized for edge in self.edges)

    @property
    def error(self) -> float:
        """The error that all quantised sums together leave, as an error budget counts it."""
        return sqrt(sum(count * edge.squared_error for edge, count in self.counted) / ERROR_UNIT)

    @property
    def numerics_rank(self) -> int:
        """The loosest class among the ops."""
        return max(edge.rank for edge in self.edges)


@dataclass(frozen=True)
class Restriction:
    """What may be used: strategies, numerics policy, pins, or a plan named by its ops.

    only         maps a boundary to the op names (or ops) that must stand there on every layer where they are legal
    own_kernels  ops by commplan's own kernels; without them a plan has what a user runs today: the library, of a server
                 its own kernels too
    unmeasured   impls that need a table although none is there: to measure them, since they have no price
    stock        impls that a server runs by itself and that no plan may name
    """

    strategies: tuple[str, ...] | None = None  # None: all
    policy: bool = True  # loosest class, pin and forbid of the deployment
    pins: bool = True
    only: tuple[tuple[str, Op], ...] = ()
    own_kernels: bool = True
    unmeasured: bool = False
    stock: bool = False

    @property
    def of_impls(self) -> Restriction:
        """What of it says by which impls an op may be performed."""
        return Restriction(own_kernels=self.own_kernels, unmeasured=self.unmeasured, stock=self.stock)


ANY = Restriction()


WhyNothing = Callable[[int | None, str, set[State | None]], tuple[str | None, str]]


def check_connected(graph: ForwardGraph, restriction: Restriction, why_nothing: WhyNothing) -> None:
    """Raise NoLegalPlanError naming the first boundary that no legal op can cross, and what keeps each from it."""
    for where, boundary, states in _walk(graph):
        if not any(boundary.get(state) for state in states):
            number, _, name = where.rpartition(".")
            field, reasons = why_nothing(int(number) if number else None, name, states)
            raise NoLegalPlanError(
                f"no legal op at {where} in {graph.mode} ({reasons}); " + _what_restricts(graph, restriction),
                field=field or f"modes.{graph.mode}",
            )


def _walk(graph: ForwardGraph) -> Iterator[tuple[str, Boundary, set[State | None]]]:
    """Every boundary of the forward in order, with the states in which it is entered."""
    after: dict[tuple[int, State | None], set[State]] = {}
    states: set[State | None] = {None}
    for where, boundary in _steps(graph):
        yield where, boundary, states
        for key in [(id(boundary), state) for state in states]:
            if key not in after:
                after[key] = {edge.after for edge in boundary.get(key[1], ())}
        states = {end for state in states for end in after[id(boundary), state]}


def _steps(graph: ForwardGraph) -> Iterator[tuple[str, Boundary]]:
    yield "embed_out", graph.embed_out
    for index, layer in enumerate(graph.layers):
        for name in LAYER_BOUNDARIES:
            yield f"{index}.{name}", layer.boundaries[name]
    yield "head_in", graph.head_in


def _what_restricts(graph: ForwardGraph, restriction: Restriction) -> str:
    numerics = graph.setup.deployment.numerics
    reasons = [f"executor {graph.setup.executor.name}"]
    if restriction.strategies is not None:
        reasons.append(f"strategies {', '.join(restriction.strategies)}")
    if restriction.policy:
        reasons.append(f"numerics.loosest {numerics.loosest}")
        reasons += [
            f"{len(rules)} rule(s) in numerics.{kind}"
            for kind, rules in (("pin", numerics.pin), ("forbid", numerics.forbid))
            if rules
        ]
    if restriction.only:
        reasons.append("the named ops")
    return "restricted by " + ", ".join(reasons)
