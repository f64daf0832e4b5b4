"""The search checked by another: networkx finds the cheapest path through the same forward, laid out edge by edge.

The planner does not search with networkx: it prices equal layers once and needs about a millisecond per token count,
where the unrolled graph takes tens (docs/decisions/search.md has the figures). As a second opinion it is
the right tool: other code, another algorithm (Dijkstra on a heap), no sharing between layers.
"""

from __future__ import annotations

from typing import Any

from ..strategy.layout import LAYER_BOUNDARIES, State
from .graph import Boundary, Edge, ForwardGraph, LayerGraph
from .planning import ModePlanner

_START, _END = "start", "end"


def cross_check(planner: ModePlanner, tokens: int) -> tuple[int, int]:
    """Weight of the best plan at a token count by our search and by networkx; equal unless one of them is wrong.

    An error budget is not a shortest-path problem, so it is left out on both sides.
    """
    import networkx as nx

    from .cheapest_plan import cheapest_plan

    graph = planner.graph()
    plan = cheapest_plan(graph, planner.pricer, tokens)
    ours = _weight(planner, "embed_out", (plan.embed_out,), tokens) + _weight(
        planner, "head_in", (plan.head_in,), tokens
    )
    ours += sum(_weight(planner, g, edges, tokens) for g, edges in zip(graph.layers, plan.layers, strict=True))
    theirs = nx.dijkstra_path_length(unrolled(planner, graph, tokens), _START, _END)
    return ours, int(theirs)


def unrolled(planner: ModePlanner, graph: ForwardGraph, tokens: int) -> Any:
    """The forward as a networkx DiGraph: a node per segment and state; as edge between two nodes the lightest sequence
    of ops, of all that there are."""
    import networkx as nx

    result: Any = nx.DiGraph()
    known: dict[object, dict[tuple[State | None, State | None], int]] = {}
    segments: list[LayerGraph | str] = ["embed_out", *graph.layers, "head_in"]
    for position, segment in enumerate(segments):
        if segment not in known:
            known[segment] = _lightest(planner, graph, segment, tokens)
        for (before, after), weight in known[segment].items():
            source = _START if position == 0 else (position, before)
            result.add_edge(source, (position + 1, after), weight=weight)
    for node in [n for n in result if n != _START and n[0] == len(segments)]:
        result.add_edge(node, _END, weight=0)
    return result


def _lightest(
    planner: ModePlanner, graph: ForwardGraph, segment: LayerGraph | str, tokens: int
) -> dict[tuple[State | None, State | None], int]:
    """The weight of the lightest sequence of ops from state to state, by trying each."""
    found: dict[tuple[State | None, State | None], int] = {}
    boundaries = _boundaries(graph, segment)
    stack: list[tuple[State | None, State | None, tuple[Edge, ...]]] = [(start, start, ()) for start in boundaries[0]]
    while stack:
        start, state, edges = stack.pop()
        if len(edges) == len(boundaries):
            weight = _weight(planner, segment, edges, tokens)
            found[start, state] = min(weight, found.get((start, state), weight))
            continue
        for edge in boundaries[len(edges)].get(state, ()):
            if planner.pricer.fits(edge, tokens):
                stack.append((start, edge.after, (*edges, edge)))
    return found


def _weight(planner: ModePlanner, segment: LayerGraph | str, edges: tuple[Edge, ...], tokens: int) -> int:
    pricer = planner.pricer
    device, host = (sum(of(edge, tokens) for edge in edges) for of in (pricer.weight, pricer.host_weight))
    return pricer.segment(segment, tokens).weight(device, host)


def _boundaries(graph: ForwardGraph, segment: LayerGraph | str) -> list[Boundary]:
    if isinstance(segment, str):
        return [graph.embed_out if segment == "embed_out" else graph.head_in]
    return [segment.boundaries[name] for name in LAYER_BOUNDARIES]
