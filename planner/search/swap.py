"""A plan with one op exchanged: as few other changes as the layouts demand, and of those the cheapest.

That is what an alternative at one boundary is judged by: what the exchange itself costs, with nothing else improved on
the side.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from ..strategy.layout import LAYER_BOUNDARIES
from ..strategy.ops import Op
from .graph import Boundary, Edge, ForwardGraph, LayerGraph, Plan
from .labels import Fronts, Options, advance, best, close, options_of, start
from .pricing import Pricer

Place = tuple[int | None, str]
"""Layer (None outside the layers) and boundary."""
_Position = tuple[Place, LayerGraph | str | None, Boundary, Edge]


class Swaps:
    """Exchanges of the op at one place of a plan. `free` is the graph without the policy: it offers an op even where
    the policy refuses it; everywhere else the policy's own `graph` is used."""

    def __init__(
        self, graph: ForwardGraph, free: ForwardGraph, plan: Plan, place: Place, pricer: Pricer, tokens: int
    ) -> None:
        self._free, self._place, self._pricer, self._tokens = free, place, pricer, tokens
        positions = list(_positions(graph, plan))
        here = next(index for index, (where, *_) in enumerate(positions) if where == place)
        self._ahead, self._here, self._behind = positions[:here], positions[here], positions[here + 1 :]
        self._known: dict[tuple[int, Op], Options] = {}

    def plan(self, op: Op) -> Plan | None:
        """The plan with `op` at the place, or None if no legal plan has it there."""
        _, segment, _, _ = self._here
        offered = boundary_at(self._free, self._place)
        with_it = {state: tuple(edge for edge in edges if edge.op == op) for state, edges in offered.items()}
        options = options_of(with_it, self._pricer, self._tokens, lambda _: (0,))
        fronts = self._closed(advance(self._before, options), segment)
        edges = best(self._through(fronts, self._behind))
        return None if edges is None else Plan.of(edges)

    @cached_property
    def _before(self) -> Fronts:
        """The paths to the place, which are the same whatever stands there."""
        return self._through(start(1), self._ahead)

    def _through(self, fronts: Fronts, positions: list[_Position]) -> Fronts:
        for _, segment, boundary, kept in positions:
            fronts = self._closed(advance(fronts, self._around(boundary, kept.op)), segment)
        return fronts

    def _closed(self, fronts: Fronts, segment: LayerGraph | str | None) -> Fronts:
        return fronts if segment is None else close(fronts, self._pricer.segment(segment, self._tokens))

    def _around(self, boundary: Boundary, kept: Op) -> Options:
        """What may stand where the plan has `kept`: another op there is a change. Equal layers ask alike."""
        key = (id(boundary), kept)
        if key not in self._known:
            self._known[key] = options_of(boundary, self._pricer, self._tokens, lambda op: (int(op != kept),))
        return self._known[key]


def boundary_at(graph: ForwardGraph, place: Place) -> Boundary:
    """What a graph offers at a place."""
    layer, name = place
    if layer is not None:
        return graph.layers[layer].boundaries[name]
    return graph.embed_out if name == "embed_out" else graph.head_in


def _positions(graph: ForwardGraph, plan: Plan) -> Iterator[_Position]:
    """Place, the segment that ends there, its edges, and the edge that the plan has."""
    yield (None, "embed_out"), "embed_out", graph.embed_out, plan.embed_out
    for index, (layer, edges) in enumerate(zip(graph.layers, plan.layers, strict=True)):
        for name, edge in zip(LAYER_BOUNDARIES, edges, strict=True):
            ends = layer if name == LAYER_BOUNDARIES[-1] else None
            yield (index, name), ends, layer.boundaries[name], edge
    yield (None, "head_in"), "head_in", graph.head_in, plan.head_in
