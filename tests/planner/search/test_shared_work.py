"""What a search does once, however many token counts, layers or ops ask for it; and that this changes no answer."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from commplan.planner.descriptions.loader import load_setup
from commplan.planner.search import labels, swap
from commplan.planner.search.graph import ANY, Restriction
from commplan.planner.search.graph_builder import GraphBuilder
from commplan.planner.search.planning import ModePlanner
from commplan.planner.search.pricing import Pricer
from commplan.planner.strategy.errors import NoLegalPlanError


@pytest.fixture
def built(monkeypatch):
    """How often a graph was built, by its restriction."""
    counts = Counter()
    build = GraphBuilder.build

    def counted(self, restriction=ANY):
        counts[restriction] += 1
        return build(self, restriction)

    monkeypatch.setattr(GraphBuilder, "build", counted)
    return counts


def test_a_restriction_that_leads_nowhere_is_found_out_once(built):
    planner = ModePlanner(load_setup("deepseek-r1-2xh200nodes-tp16"), "prefill")
    nowhere = Restriction(strategies=("mixed_comm",))
    messages = set()
    for tokens in (1, 64, 4096):
        with pytest.raises(NoLegalPlanError) as refused:
            planner.best(tokens, nowhere)
        messages.add(refused.value.message)
    assert built[nowhere] == 1
    assert len(messages) == 1


def test_kinds_of_layers_that_offer_the_same_are_priced_once(monkeypatch):
    planner = ModePlanner(load_setup("qwen3.5-397b-h200-dp8"), "prefill")
    kinds = list(dict.fromkeys(planner.graph().layers))
    assert len(kinds) == 2  # by attention, which no op depends on
    asked, weights = [], Pricer.weights

    def noted(self, edges, tokens):
        asked.append(tuple(edges))
        return weights(self, edges, tokens)

    monkeypatch.setattr(Pricer, "weights", noted)
    planner.best(4096)
    assert len(asked) == len(set(asked))


def test_exchanges_at_one_place_walk_to_it_once(monkeypatch):
    planner = ModePlanner(load_setup("qwen3-32b-h200-tp2"), "prefill")
    graph, plan = planner.graph(), planner.best(4096)
    steps, advance = [], labels.advance

    def noted(fronts, options):
        steps.append(options)
        return advance(fronts, options)

    monkeypatch.setattr(swap, "advance", noted)
    swaps = swap.Swaps(graph, graph, plan, (len(plan.layers) - 1, "mlp_out"), planner.pricer, 4096)
    ops = {edge.op for edges in swap.boundary_at(graph, (len(plan.layers) - 1, "mlp_out")).values() for edge in edges}
    found = [swaps.plan(op) for op in ops]
    assert len(ops) > 2
    assert plan in found  # by the op that it has
    boundaries = 4 * len(plan.layers) + 2
    assert len(steps) < boundaries + 3 * len(ops)


def test_edges_that_no_forward_reaches_are_not_priced(monkeypatch):
    planner = ModePlanner(load_setup("qwen3.5-397b-h200-dp4"), "prefill")
    graph = planner.graph()
    reached, states = set(graph.embed_out[None]), {edge.after for edge in graph.embed_out[None]}
    for boundary in [b for layer in graph.layers for b in layer.boundaries.values()]:
        edges = [edge for state in states for edge in boundary.get(state, ())]
        reached.update(edges)
        states = {edge.after for edge in edges}
    asked, weights = set(), Pricer.weights

    def noted(self, edges, tokens):
        asked.update(edges)
        return weights(self, edges, tokens)

    monkeypatch.setattr(Pricer, "weights", noted)
    planner.best(4096)
    assert {edge for edge in asked if edge.boundary != "head_in"} == reached
    assert reached < {edge for edge in graph.edges if edge.boundary != "head_in"}


class _Edge:
    """All that a label asks of an edge."""

    def __init__(self, after):
        self.after = after


def test_options_that_are_left_out_are_of_no_best_path():
    draw = random.Random(7)
    for _ in range(300):
        boundaries = [
            {
                before: [
                    labels.Option(
                        (draw.randint(0, 1),), draw.randint(1, 4), draw.randint(1, 4), _Edge(draw.choice("ab"))
                    )
                    for _ in range(draw.randint(1, 6))
                ]
                for before in ((None,) if index == 0 else ("a", "b"))
            }
            for index in range(4)
        ]
        whole, fewer = labels.start(1), labels.start(1)
        for boundary in boundaries:
            whole = labels.advance(whole, boundary)
            kept = {before: labels.undominated(options) for before, options in boundary.items()}
            fewer = labels.advance(fewer, kept)
        assert whole == fewer


def test_of_equal_options_the_first_is_kept():
    first, second = (labels.Option((0,), 1, 1, _Edge("a")) for _ in range(2))
    assert labels.undominated([first, second]) == [first]
