"""A plan with one op exchanged: as few other changes as the layouts demand, and of those the cheapest.

That is what an alternative at one boundary is judged by: what the exchange itself costs, with nothing else improved on
the side.
"""

from __future__ import annotations

from ..strategy.layout import LAYER_BOUNDARIES
from ..strategy.ops import Op
from .graph import Boundary, Edge, ForwardGraph, Plan
from .pricing import Pricer
from .shortest_path import Entry

_Label = tuple[int, int, tuple[Edge, ...]]  # other ops changed, weight, edges so far


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
    best: dict[Entry, _Label] = {None: (0, 0, ())}
    for here, boundary, fallback, kept in _positions(graph, free, plan):
        reached: dict[Entry, _Label] = {}
        for state, (changed, weight, edges) in best.items():
            options = fallback.get(state, ()) if here == place else boundary.get(state, ())
            for edge in options:
                if (here == place and edge.op != op) or not pricer.fits(edge, tokens):
                    continue
                deviates = here != place and edge.op != kept.op
                label = (changed + deviates, weight + pricer.weight(edge, tokens), (*edges, edge))
                known = reached.get(edge.after)
                if known is None or label[:2] < known[:2]:
                    reached[edge.after] = label
        best = reached
    if not best:
        return None
    edges = min(best.values(), key=lambda label: label[:2])[2]
    step = len(LAYER_BOUNDARIES)
    layers = tuple(edges[i : i + step] for i in range(1, len(edges) - 1, step))
    return Plan(edges[0], layers, edges[-1])


def _positions(
    graph: ForwardGraph, free: ForwardGraph, plan: Plan
) -> list[tuple[tuple[int | None, str], Boundary, Boundary, Edge]]:
    """Place, its edges under the policy and without it, and the edge that the plan has there."""
    found = [((None, "embed_out"), graph.embed_out, free.embed_out, plan.embed_out)]
    for index, (layer, free_layer, edges) in enumerate(zip(graph.layers, free.layers, plan.layers, strict=True)):
        for name, edge in zip(LAYER_BOUNDARIES, edges, strict=True):
            found.append(((index, name), layer.boundaries[name], free_layer.boundaries[name], edge))  # type: ignore[arg-type]
    found.append(((None, "head_in"), graph.head_in, free.head_in, plan.head_in))
    return found  # type: ignore[return-value]
