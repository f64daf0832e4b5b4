"""Exact search of the cheapest plan of one forward, at one token count.

The forward is a layered graph of stages: embed_out, the layers, head_in. A stage offers *steps* from the state it is
entered in to the state it leaves: a step of a layer is a sequence of four ops. Layers of one kind offer the same steps,
so they are priced once per token count.

  minimise   sum of step weights            weight = time in ps, then numerics class, then number of ops
                                            time = the longer of device and host (see `pricing`)
  subject to sum of squared errors <= E^2   (where the deployment gives an error budget)

Without a budget that is a shortest path over the stages (`shortest_path`), with one a resource-constrained one
(`error_budget`). Both are exact.
"""

from __future__ import annotations

import math
from operator import itemgetter
from typing import NamedTuple

from ..strategy.errors import NoLegalPlanError
from ..strategy.layout import LAYER_BOUNDARIES
from .error_budget import WEIGHT_UNIT, Near, within_budget
from .graph import ERROR_UNIT, Boundary, Edge, ForwardGraph, LayerGraph, Plan
from .pricing import Pricer, Segment
from .shortest_path import Entry, Step, Steps, cheapest_path


def squared_budget(error_budget: float | None) -> int | None:
    """E^2 in the integer units of squared errors."""
    return None if error_budget is None else math.floor(error_budget * error_budget * ERROR_UNIT)


class Found(NamedTuple):
    """A plan, a bound that no plan's time in ps is below, and where a search at a near token count may start from."""

    plan: Plan
    least_ps: int
    near: Near | None


def cheapest_plan(graph: ForwardGraph, pricer: Pricer, tokens: int, squared_error_budget: int | None = None) -> Plan:
    """The cheapest plan of the graph at a token count; raises NoLegalPlanError if limits or budget leave none."""
    return search(graph, pricer, tokens, squared_error_budget).plan


def search(
    graph: ForwardGraph,
    pricer: Pricer,
    tokens: int,
    squared_error_budget: int | None = None,
    slack_ps: int = 0,
    near: Near | None = None,
) -> Found:
    """A plan within `slack_ps` of the cheapest one (0: the cheapest), and the bound that shows it.

    Only an error budget makes the last picoseconds expensive: without one the plan is the cheapest, whatever the slack.
    """
    stages = _stages(graph, pricer, tokens, squared_error_budget is not None)
    path = cheapest_path(stages)
    if path is None:
        raise NoLegalPlanError(
            f"no plan of {graph.mode} at {tokens} tokens keeps within "
            f"{graph.setup.deployment.limits.activation_memory_gb} GB of activation memory",
            field="limits.activation_memory_gb",
            value=graph.setup.deployment.limits.activation_memory_gb,
        )
    bound = sum(step.weight for step in path)
    if squared_error_budget is not None:
        budget, slack = squared_error_budget * WEIGHT_UNIT, pricer.weight_of(slack_ps)
        path, bound, near = within_budget(stages, path, budget, graph, slack, near)
    plan = Plan(path[0].edges[0], tuple(step.edges for step in path[1:-1]), path[-1].edges[0])
    return Found(plan, pricer.ps_of(bound), near)


# ---- stages ---------------------------------------------------------------------------------------------------------

_UNWEIGHTED = (WEIGHT_UNIT, WEIGHT_UNIT)


class _Way(NamedTuple):
    """A sequence of ops through a layer: weights on device and host, squared errors of its two sums, edges."""

    weight: int
    host: int
    attn_error: int
    mlp_error: int
    edges: tuple[Edge, ...]


_Ways = dict[Entry, dict[Entry, list[_Way]]]


def _stages(graph: ForwardGraph, pricer: Pricer, tokens: int, with_errors: bool) -> list[Steps]:
    ways: dict[LayerGraph, _Ways] = {}
    steps: dict[tuple[LayerGraph, tuple[int, int]], Steps] = {}
    stages = [_one_boundary(graph.embed_out, pricer, tokens, "embed_out")]
    for index, layer in enumerate(graph.layers):
        weights = _UNWEIGHTED
        if with_errors and graph.weights is not None:
            a, m = graph.weights[index]
            weights = (round(a * a * WEIGHT_UNIT), round(m * m * WEIGHT_UNIT))
        key = (layer, weights)
        if key not in steps:
            if layer not in ways:
                ways[layer] = _layer_ways(layer, pricer, tokens, with_errors)
            steps[key] = _weighted(ways[layer], weights)
        stages.append(steps[key])
    stages.append(_one_boundary(graph.head_in, pricer, tokens, "head_in"))
    return stages


def _one_boundary(boundary: Boundary, pricer: Pricer, tokens: int, name: str) -> Steps:
    steps: Steps = {}
    segment = pricer.segment(name, tokens)
    for before, edges in boundary.items():
        for edge in edges:
            if pricer.fits(edge, tokens):
                weight = segment.weight(pricer.weight(edge, tokens), pricer.host_weight(edge, tokens))
                new = Step(weight, 0, (edge,))
                known = steps.setdefault(before, {}).setdefault(edge.after, [new])
                if new.weight < known[0].weight:
                    known[0] = new
    return steps


_Priced = tuple[Edge, int, int, int, int]  # an edge, its weights on device and host, its errors at the two sums


def _layer_ways(layer: LayerGraph, pricer: Pricer, tokens: int, with_errors: bool) -> _Ways:
    """All non-dominated ways through a layer, by entering and leaving state. Without errors: the lightest."""
    segment = pricer.segment(layer, tokens)
    priced = [_priced(layer, name, pricer, tokens, with_errors) for name in LAYER_BOUNDARIES]
    if segment.behind_ps is not None:
        priced, segment = _one_sided(priced, segment, pricer)
    if segment.behind_ps is None:
        priced = [{state: [(e, w, 0, a, m) for e, w, _, a, m in es] for state, es in by.items()} for by in priced]
    result: _Ways = {}
    for start in layer.boundaries["attn_in"]:
        front: dict[Entry, list[_Way]] = {start: [_Way(0, 0, 0, 0, ())]}
        for by_state in priced:
            after: dict[Entry, list[_Way]] = {}
            for state, ways in front.items():
                for edge, weight, host, attn, mlp in by_state.get(state, ()):
                    known = after.setdefault(edge.after, [])
                    for way in ways:
                        _add(known, way[0] + weight, way[1] + host, way[2] + attn, way[3] + mlp, way[4], edge)
            front = after
        if front:
            result[start] = front if segment.behind_ps is None else _longer(front, segment)
    return result


def _priced(layer: LayerGraph, name: str, pricer: Pricer, tokens: int, with_errors: bool) -> dict[Entry, list[_Priced]]:
    """The edges of a boundary that keep within the limits, with their weights and errors; without dominated ones."""
    attn, mlp = with_errors and name == "attn_out", with_errors and name == "mlp_out"
    found: dict[Entry, list[_Priced]] = {}
    for before, edges in layer.boundaries[name].items():
        by_after: dict[Entry, list[_Priced]] = {}
        for edge in edges:
            if pricer.fits(edge, tokens):
                weight, host = pricer.weight(edge, tokens), pricer.host_weight(edge, tokens)
                new = (edge, weight, host, edge.squared_error * attn, edge.squared_error * mlp)
                known = by_after.setdefault(edge.after, [])
                if not any(k[1] <= weight and k[2] <= host and k[3] <= new[3] and k[4] <= new[4] for k in known):
                    known.append(new)
        found[before] = [each for known in by_after.values() for each in known]
    return found


def _one_sided(
    priced: list[dict[Entry, list[_Priced]]], segment: Segment, pricer: Pricer
) -> tuple[list[dict[Entry, list[_Priced]]], Segment]:
    """Where one of the two is the slower one on every way: its weights alone, and a segment without host."""
    assert segment.behind_ps is not None
    devices = [[edge[1] for edges in by_state.values() for edge in edges] for by_state in priced]
    hosts = [[edge[2] for edges in by_state.values() for edge in edges] for by_state in priced]
    least_device, most_host = sum(min(each, default=0) for each in devices), sum(max(each, default=0) for each in hosts)
    least_host, most_device = sum(min(each, default=0) for each in hosts), sum(max(each, default=0) for each in devices)
    behind = pricer.weight_of(segment.behind_ps)
    if most_host + behind <= least_device:
        return priced, Segment(None)
    if most_device <= least_host + behind:
        first = [{s: [(e, h + behind, 0, a, m) for e, _, h, a, m in es] for s, es in priced[0].items()}]
        rest = [{s: [(e, h, 0, a, m) for e, _, h, a, m in es] for s, es in by.items()} for by in priced[1:]]
        return first + rest, Segment(None)
    return priced, segment


def _longer(front: dict[Entry, list[_Way]], segment: Segment) -> dict[Entry, list[_Way]]:
    """The ways with the longer of their two times, without those that are now dominated."""
    result: dict[Entry, list[_Way]] = {}
    for state, ways in front.items():
        kept = result.setdefault(state, [])
        for weight, host, attn, mlp, edges in ways:
            _add(kept, segment.weight(weight, host), 0, attn, mlp, edges[:-1], edges[-1])
    return result


def _add(known: list[_Way], weight: int, host: int, attn: int, mlp: int, edges: tuple[Edge, ...], edge: Edge) -> None:
    """Keep the new way unless it is dominated; drop what it dominates. The first of two equals stays."""
    for w, h, a, m, _ in known:
        if w <= weight and h <= host and a <= attn and m <= mlp:
            return
    known[:] = [k for k in known if not (weight <= k[0] and host <= k[1] and attn <= k[2] and mlp <= k[3])]
    known.append(_Way(weight, host, attn, mlp, (*edges, edge)))


def _weighted(ways: _Ways, weights: tuple[int, int]) -> Steps:
    """The ways of one layer, its own sensitivity applied: by rising weight and falling error."""
    return {
        before: {after: _front(options, weights) for after, options in by_after.items()}
        for before, by_after in ways.items()
    }


def _front(ways: list[_Way], weights: tuple[int, int]) -> list[Step]:
    attn, mlp = weights
    steps = [Step(w, a * attn + m * mlp, edges) for w, _, a, m, edges in ways]
    if len(steps) == 1:
        return steps
    steps.sort(key=itemgetter(0, 1))
    kept: list[Step] = []
    for step in steps:
        if not kept or step[1] < kept[-1][1]:
            kept.append(step)
    return kept
