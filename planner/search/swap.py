"""A plan with one op exchanged: as few other changes as the layouts demand, and of those the cheapest.

That is what an alternative at one boundary is judged by: what the exchange itself costs, with nothing else improved on
the side.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..strategy.layout import LAYER_BOUNDARIES
from ..strategy.ops import Op
from .graph import Boundary, Edge, ForwardGraph, LayerGraph, Plan
from .labels import Fronts, best, close, keep, start
from .pricing import Pricer


def swapped(
    graph: ForwardGraph,
    free: ForwardGraph,
    plan: Plan,
    place: tuple[int | None, str],
    op: Op,
    pricer: Pricer,
    tokens: int,
) -> Plan | None:
    """`plan` with `op` at `place` (layer, boundary), or None if no legal plan has it there.

    `free` is the graph without the policy: it offers the op even where the policy refuses it; everywhere else the
    policy's own `graph` is used.
    """
    fronts = start(1)
    for here, segment, boundary, fallback, kept in _positions(graph, free, plan):
        reached: Fronts = {}
        for state, labels in fronts.items():
            options = fallback.get(state, ()) if here == place else boundary.get(state, ())
            for edge in options:
                if (here == place and edge.op != op) or not pricer.fits(edge, tokens):
                    continue
                deviates = here != place and edge.op != kept.op
                for label in labels:
                    keep(reached, label.taken(edge, (deviates,), pricer, tokens))
        fronts = reached if segment is None else close(reached, pricer.segment(segment, tokens))
    edges = best(fronts)
    if edges is None:
        return None
    step = len(LAYER_BOUNDARIES)
    layers = tuple(edges[i : i + step] for i in range(1, len(edges) - 1, step))
    return Plan(edges[0], layers, edges[-1])


def _positions(
    graph: ForwardGraph, free: ForwardGraph, plan: Plan
) -> Iterator[tuple[tuple[int | None, str], LayerGraph | str | None, Boundary, Boundary, Edge]]:
    """Place, the segment that ends there, its edges under the policy and without it, and the edge that the plan has."""
    yield (None, "embed_out"), "embed_out", graph.embed_out, free.embed_out, plan.embed_out
    for index, (layer, free_layer, edges) in enumerate(zip(graph.layers, free.layers, plan.layers, strict=True)):
        for name, edge in zip(LAYER_BOUNDARIES, edges, strict=True):
            ends = layer if name == LAYER_BOUNDARIES[-1] else None
            yield (index, name), ends, layer.boundaries[name], free_layer.boundaries[name], edge
    yield (None, "head_in"), "head_in", graph.head_in, free.head_in, plan.head_in
