"""Exact search of the cheapest plan of one forward, at one token count.

The forward is a layered graph of stages: embed_out, the layers, head_in. A stage offers *steps* from the state it is
entered in to the state it leaves: a step of a layer is a sequence of four ops. Layers of one kind offer the same steps,
so they are priced once per token count.

  minimise   sum of step weights            weight = time in ps, then numerics class, then number of ops
                                            time = the longer of device and host (see `pricing`)
  subject to sum of damages <= budget       (where the deployment gives one: of squared errors, or of losses; `damage`)

Without a budget that is a shortest path over the stages (`shortest_path`), with one a resource-constrained one
(`error_budget`). Both are exact.
"""

from __future__ import annotations

from operator import itemgetter
from typing import NamedTuple

from ..strategy.errors import NoLegalPlanError
from ..strategy.layout import LAYER_BOUNDARIES
from .damage import SUMS, WEIGHT_UNIT, Classes, ClassesAt
from .error_budget import Near, within_budget
from .graph import Boundary, Edge, ForwardGraph, LayerGraph, Plan
from .pricing import Pricer, Segment
from .shortest_path import Entry, Step, Steps, cheapest_path


class Found(NamedTuple):
    """A plan, a bound that no plan's time in ps is below, and where a search at a near token count may start from."""

    plan: Plan
    least_ps: int
    near: Near | None


def cheapest_plan(graph: ForwardGraph, pricer: Pricer, tokens: int, budget: int | None = None) -> Plan:
    """The cheapest plan of the graph at a token count; raises NoLegalPlanError if limits or budget leave none."""
    return search(graph, pricer, tokens, budget).plan


def search(
    graph: ForwardGraph,
    pricer: Pricer,
    tokens: int,
    budget: int | None = None,
    slack_ps: int = 0,
    near: Near | None = None,
) -> Found:
    """A plan within `slack_ps` of the cheapest one (0: the cheapest), and the bound that shows it.

    Only an error budget makes the last picoseconds expensive: without one the plan is the cheapest, whatever the slack.
    """
    stages = _stages(graph, pricer, tokens, budget is not None)
    path = cheapest_path(stages)
    if path is None:
        raise NoLegalPlanError(
            f"no plan of {graph.mode} at {tokens} tokens keeps within "
            f"{graph.setup.deployment.limits.activation_memory_gb} GB of activation memory",
            field="limits.activation_memory_gb",
            value=graph.setup.deployment.limits.activation_memory_gb,
        )
    bound = sum(step.weight for step in path)
    if budget is not None:
        path, bound, near = within_budget(stages, path, budget * WEIGHT_UNIT, graph, pricer.weight_of(slack_ps), near)
    plan = Plan(path[0].edges[0], tuple(step.edges for step in path[1:-1]), path[-1].edges[0])
    return Found(plan, pricer.ps_of(bound), near)


# ---- stages ---------------------------------------------------------------------------------------------------------


class _Way(NamedTuple):
    """A sequence of ops through a layer: weights on device and host, what its two sums do (`Classes`), edges."""

    weight: int
    host: int
    damage: int
    edges: tuple[Edge, ...]


_Ways = dict[Entry, dict[Entry, list[_Way]]]


def _stages(graph: ForwardGraph, pricer: Pricer, tokens: int, with_errors: bool) -> list[Steps]:
    layers = _Layers(graph, pricer, tokens, graph.classes if with_errors else None)
    ways: dict[LayerGraph, _Ways] = {}
    steps: dict[tuple[int, object], Steps] = {}
    stages = [_one_boundary(graph.embed_out, pricer, tokens, "embed_out")]
    for index, layer in enumerate(graph.layers):
        if layer not in ways:
            ways[layer] = layers.ways(layer)
        key = (id(ways[layer]), graph.damage.key(index) if with_errors else None)
        if key not in steps:
            steps[key] = _weighted(ways[layer], graph.classes.at(index) if with_errors else None)
        stages.append(steps[key])
    stages.append(_one_boundary(graph.head_in, pricer, tokens, "head_in"))
    return stages


def _one_boundary(boundary: Boundary, pricer: Pricer, tokens: int, name: str) -> Steps:
    steps: Steps = {}
    segment = pricer.segment(name, tokens)
    for before, edges in boundary.items():
        for edge, device, host in pricer.weights(edges, tokens):
            new = Step(segment.weight(device, host), 0, (edge,))
            known = steps.setdefault(before, {}).setdefault(edge.after, [new])
            if new.weight < known[0].weight:
                known[0] = new
    return steps


_Priced = tuple[Edge, int, int, int]  # an edge, its weights on device and host, what its sum does


class _Layers:
    """The ways through layers at one token count. Kinds of layers that offer the same at a boundary share its dict
    (`GraphBuilder`), so that is priced once; where their segments are alike too, they share the ways."""

    def __init__(self, graph: ForwardGraph, pricer: Pricer, tokens: int, classes: Classes | None) -> None:
        self._reached = graph.reached
        self._pricer, self._tokens, self._classes = pricer, tokens, classes
        self._boundaries: dict[int, dict[Entry, list[_Priced]]] = {}
        self._ways: dict[tuple[object, ...], _Ways] = {}

    def ways(self, layer: LayerGraph) -> _Ways:
        """All non-dominated ways through a layer, by entering and leaving state. Without errors: the lightest."""
        segment = self._pricer.segment(layer, self._tokens)
        key = (segment, *(id(layer.boundaries[name]) for name in LAYER_BOUNDARIES))
        if key not in self._ways:
            priced = [self._priced(layer, name) for name in LAYER_BOUNDARIES]
            self._ways[key] = _layer_ways(layer, priced, segment, self._pricer)
        return self._ways[key]

    def _priced(self, layer: LayerGraph, name: str) -> dict[Entry, list[_Priced]]:
        boundary = layer.boundaries[name]
        if id(boundary) not in self._boundaries:
            classes, reached = self._classes if name in SUMS else None, self._reached[id(boundary)]
            entered = {state: edges for state, edges in boundary.items() if state in reached}
            self._boundaries[id(boundary)] = _priced(entered, self._pricer, self._tokens, classes)
        return self._boundaries[id(boundary)]


def _layer_ways(layer: LayerGraph, priced: list[dict[Entry, list[_Priced]]], segment: Segment, pricer: Pricer) -> _Ways:
    if segment.behind_ps is not None:
        priced, segment = _one_sided(priced, segment, pricer)
    if segment.behind_ps is None:
        priced = [{state: [(e, w, 0, d) for e, w, _, d in es] for state, es in by.items()} for by in priced]
    result: _Ways = {}
    for start in layer.boundaries["attn_in"]:
        front: dict[Entry, list[_Way]] = {start: [_Way(0, 0, 0, ())]}
        for by_state in priced:
            after: dict[Entry, list[_Way]] = {}
            for state, ways in front.items():
                for edge, weight, host, damage in by_state.get(state, ()):
                    known = after.setdefault(edge.after, [])
                    for way in ways:
                        _add(known, way[0] + weight, way[1] + host, way[2] | damage, way[3], edge)
            front = after
        if front:
            result[start] = front if segment.behind_ps is None else _longer(front, segment)
    return result


def _priced(boundary: Boundary, pricer: Pricer, tokens: int, classes: Classes | None) -> dict[Entry, list[_Priced]]:
    """The edges of a boundary that keep within the limits, with their weights and errors; without dominated ones."""
    found: dict[Entry, list[_Priced]] = {}
    for before, edges in boundary.items():
        by_after: dict[Entry, list[_Priced]] = {}
        for edge, weight, host in pricer.weights(edges, tokens):
            damage = classes.of(edge) if classes is not None else 0
            known = by_after.setdefault(edge.after, [])
            for _, w, h, d in known:
                if w <= weight and h <= host and d & damage == d:
                    break
            else:
                known.append((edge, weight, host, damage))
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
        first = [{s: [(e, h + behind, 0, d) for e, _, h, d in es] for s, es in priced[0].items()}]
        rest = [{s: [(e, h, 0, d) for e, _, h, d in es] for s, es in by.items()} for by in priced[1:]]
        return first + rest, Segment(None)
    return priced, segment


def _longer(front: dict[Entry, list[_Way]], segment: Segment) -> dict[Entry, list[_Way]]:
    """The ways with the longer of their two times, without those that are now dominated."""
    result: dict[Entry, list[_Way]] = {}
    for state, ways in front.items():
        kept = result.setdefault(state, [])
        for weight, host, damage, edges in ways:
            _add(kept, segment.weight(weight, host), 0, damage, edges[:-1], edges[-1])
    return result


def _add(known: list[_Way], weight: int, host: int, damage: int, edges: tuple[Edge, ...], edge: Edge) -> None:
    """Keep the new way unless it is dominated; drop what it dominates. The first of two equals stays."""
    for w, h, d, _ in known:
        if w <= weight and h <= host and d & damage == d:
            return
    known[:] = [k for k in known if not (weight <= k[0] and host <= k[1] and damage & k[2] == damage)]
    known.append(_Way(weight, host, damage, (*edges, edge)))


def _weighted(ways: _Ways, at: ClassesAt | None) -> Steps:
    """The ways of one layer, with what they do there: by rising weight and falling damage."""
    return {
        before: {after: _front(options, at) for after, options in by_after.items()} for before, by_after in ways.items()
    }


def _front(ways: list[_Way], at: ClassesAt | None) -> list[Step]:
    steps = [Step(w, 0 if at is None else at.of(d), edges) for w, _, d, edges in ways]
    if len(steps) == 1:
        return steps
    steps.sort(key=itemgetter(0, 1))
    kept: list[Step] = []
    for step in steps:
        if not kept or step[1] < kept[-1][1]:
            kept.append(step)
    return kept
