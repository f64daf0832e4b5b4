"""A second opinion on the search: networkx on the same forward, edge by edge, for every shipped deployment."""

from __future__ import annotations

import networkx as nx
import pytest

from commplan.planner.descriptions.loader import load_setup, preset_names
from commplan.planner.search.cheapest_plan import cheapest_plan
from commplan.planner.search.cross_check import cross_check
from commplan.planner.search.graph import ForwardGraph
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.layout import LAYER_BOUNDARIES

CASES = [(name, mode) for name in preset_names("deployments") for mode in load_setup(name).deployment.modes]


def least_weight(graph: ForwardGraph, planner: ModePlanner, tokens: int) -> int:
    """The weight of the shortest path from before embed_out to after head_in."""
    unrolled = nx.MultiDiGraph()
    steps = [graph.embed_out]
    steps += [layer.boundaries[name] for layer in graph.layers for name in LAYER_BOUNDARIES]
    for index, boundary in enumerate([*steps, graph.head_in]):
        for edge in (edge for edges in boundary.values() for edge in edges):
            if planner.pricer.fits(edge, tokens):
                weight = planner.pricer.weight(edge, tokens)
                unrolled.add_edge((index, edge.before), (index + 1, edge.after), weight=weight)
    for node in [node for node in unrolled if node[0] == len(steps) + 1]:
        unrolled.add_edge(node, "end", weight=0)
    method = "dijkstra" if len(graph.layers) > 70 else "bellman-ford"
    return nx.shortest_path_length(unrolled, (0, None), "end", weight="weight", method=method)


QUICK = ("qwen3-0.6b-cpu-tp2", "deepseek-r1-h20-tp8", "qwen3.5-397b-h200-dp8")  # plain, latent, attention DP


@pytest.mark.parametrize(
    ("name", "mode"), [pytest.param(*case, marks=[] if case[0] in QUICK else [pytest.mark.slow]) for case in CASES]
)
def test_networkx_finds_no_cheaper_plan(name, mode):
    planner = ModePlanner(load_setup(name), mode)
    graph = planner.graph()
    first, last = planner.setup.deployment.modes[mode].tokens
    for tokens in (first, first + 6, 63, 64, 100, 1000, last):
        if first <= tokens <= last:
            plan = cheapest_plan(graph, planner.pricer, tokens)
            ours, theirs = cross_check(planner, tokens)
            assert ours == theirs
            assert ours >> 40 == planner.pricer.plan_ps(plan, tokens)
            if not planner.pricer.host.counts:  # then a forward is as long as its ops, one by one
                assert ours == least_weight(graph, planner, tokens)
