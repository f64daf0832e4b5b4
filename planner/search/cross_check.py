"""The search checked by another: networkx finds the cheapest path through the same forward, laid out edge by edge.

The planner does not search with networkx: it prices equal layers once and needs about a millisecond per token count,
where the unrolled graph takes tens (docs/decisions.md has the figures). As a second opinion it is the right tool: other
code, another algorithm (Dijkstra on a heap), no sharing between layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..strategy.layout import LAYER_BOUNDARIES
from .graph import Boundary, ForwardGraph
from .planning import ModePlanner

if TYPE_CHECKING:
    from collections.abc import Iterator

_START, _END = "start", "end"


def cross_check(planner: ModePlanner, tokens: int) -> tuple[int, int]:
    """Weight of the best plan at a token count by our search and by networkx; equal unless one of them is wrong.

    An error budget is not a shortest-path problem, so it is left out on both sides.
    """
    import networkx as nx

    from .cheapest_plan import cheapest_plan

    graph = planner.graph()
    ours = sum(planner.pricer.weight(e, tokens) for e in cheapest_plan(graph, planner.pricer, tokens).edges)
    theirs = nx.dijkstra_path_length(unrolled(planner, graph, tokens), _START, _END)
    return ours, int(theirs)


def unrolled(planner: ModePlanner, graph: ForwardGraph, tokens: int) -> Any:
    """The forward as a networkx DiGraph: a node per boundary and state, the lightest op between two nodes as edge."""
    import networkx as nx

    result: Any = nx.DiGraph()
    for position, boundary in enumerate(_boundaries(graph)):
        for before, edges in boundary.items():
            for edge in edges:
                if not planner.pricer.fits(edge, tokens):
                    continue
                source = _START if position == 0 else (position, before)
                target = (position + 1, edge.after)
                weight = planner.pricer.weight(edge, tokens)
                if not result.has_edge(source, target) or weight < result[source][target]["weight"]:
                    result.add_edge(source, target, weight=weight, op=edge.op)
    last = 4 * len(graph.layers) + 2
    for node in [n for n in result if n != _START and n[0] == last]:
        result.add_edge(node, _END, weight=0)
    return result


def _boundaries(graph: ForwardGraph) -> Iterator[Boundary]:
    yield graph.embed_out
    for layer in graph.layers:
        for name in LAYER_BOUNDARIES:
            yield layer.boundaries[name]
    yield graph.head_in
