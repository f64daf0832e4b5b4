"""Exact search of the cheapest plan of one forward, at one token count.

The forward is a layered graph of stages: embed_out, the layers, head_in. A stage offers *steps* from the state it is
entered in to the state it leaves: a step of a layer is a sequence of four ops. Layers of one kind offer the same steps,
so they are priced once per token count.

  minimise   sum of step weights            weight = time in ps, then numerics class, then number of ops
  subject to sum of squared errors <= E^2   (where the deployment gives an error budget)

Without a budget that is a shortest path over the stages (`shortest_path`), with one a resource-constrained one
(`error_budget`). Both are exact.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from .error_budget import WEIGHT_UNIT, within_budget
from .errors import NoLegalPlanError
from .graph import ERROR_UNIT, Boundary, Edge, ForwardGraph, LayerGraph
from .layout import LAYER_BOUNDARIES
from .pricing import Pricer
from .shortest_path import Entry, Step, Steps, cheapest_path


@dataclass(frozen=True)
class Plan:
    """The ops of one forward: the edges of embed_out, of every layer, of head_in."""

    embed_out: Edge
    layers: tuple[tuple[Edge, ...], ...]
    head_in: Edge

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All edges in the order of the forward."""
        return (self.embed_out, *(edge for layer in self.layers for edge in layer), self.head_in)

    @cached_property
    def counted(self) -> tuple[tuple[Edge, int], ...]:
        """Distinct edges with how often each occurs."""
        return tuple(Counter(self.edges).items())

    @property
    def numerics_rank(self) -> int:
        """The loosest class among the ops."""
        return max(edge.rank for edge in self.edges)


def squared_budget(error_budget: float | None) -> int | None:
    """E^2 in the integer units of squared errors."""
    return None if error_budget is None else math.floor(error_budget * error_budget * ERROR_UNIT)


def cheapest_plan(graph: ForwardGraph, pricer: Pricer, tokens: int, squared_error_budget: int | None = None) -> Plan:
    """The cheapest plan of the graph at a token count; raises NoLegalPlanError if limits or budget leave none."""
    keep_pareto = squared_error_budget is not None
    shared: dict[tuple[LayerGraph, tuple[int, int]], Steps] = {}
    stages: list[Steps] = [_one_boundary(graph.embed_out, pricer, tokens)]
    for index, layer in enumerate(graph.layers):
        weights = _UNWEIGHTED
        if keep_pareto and graph.weights is not None:
            a, m = graph.weights[index]
            weights = (round(a * a * WEIGHT_UNIT), round(m * m * WEIGHT_UNIT))
        key = (layer, weights)
        if key not in shared:
            shared[key] = _layer_steps(layer, pricer, tokens, weights, keep_pareto)
        stages.append(shared[key])
    stages.append(_one_boundary(graph.head_in, pricer, tokens))
    path = cheapest_path(stages, lambda step: step.weight)
    if path is None:
        raise NoLegalPlanError(
            f"no plan of {graph.mode} at {tokens} tokens keeps within "
            f"{graph.setup.deployment.limits.activation_memory_gb} GB of activation memory",
            field="limits.activation_memory_gb",
            value=graph.setup.deployment.limits.activation_memory_gb,
        )
    if squared_error_budget is not None:
        path = within_budget(stages, path, squared_error_budget * WEIGHT_UNIT, graph)
    return Plan(path[0].edges[0], tuple(step.edges for step in path[1:-1]), path[-1].edges[0])


# ---- stages ---------------------------------------------------------------------------------------------------------

_UNWEIGHTED = (WEIGHT_UNIT, WEIGHT_UNIT)


def _one_boundary(boundary: Boundary, pricer: Pricer, tokens: int) -> Steps:
    steps: Steps = {}
    for before, edges in boundary.items():
        for edge in edges:
            if pricer.fits(edge, tokens):
                _add(steps.setdefault(before, {}), edge.after, Step(pricer.weight(edge, tokens), 0, (edge,)), False)
    return steps


def _layer_steps(layer: LayerGraph, pricer: Pricer, tokens: int, weights: tuple[int, int], keep_pareto: bool) -> Steps:
    """All non-dominated ways through a layer, by entering and leaving state."""
    error_weight = {"attn_out": weights[0], "mlp_out": weights[1]}
    priced: list[dict[Entry, list[tuple[Edge, int, int]]]] = []
    for name in LAYER_BOUNDARIES:
        factor = error_weight.get(name, 0)
        by_state = {
            before: [
                (edge, pricer.weight(edge, tokens), edge.squared_error * factor)
                for edge in edges
                if pricer.fits(edge, tokens)
            ]
            for before, edges in layer.boundaries[name].items()
        }
        priced.append(by_state)
    result: Steps = {}
    for start in layer.boundaries["attn_in"]:
        front: dict[Entry, list[Step]] = {start: [Step(0, 0, ())]}
        for by_state in priced:
            after: dict[Entry, list[Step]] = {}
            for state, labels in front.items():
                for edge, weight, error in by_state.get(state, ()):
                    for label in labels:
                        step = Step(label.weight + weight, label.error + error, (*label.edges, edge))
                        _add(after, edge.after, step, keep_pareto)
            front = after
        if front:
            result[start] = front
    return result


def _add(steps: dict[Entry, list[Step]], state: Entry, new: Step, keep_pareto: bool) -> None:
    """Keep `new` unless it is dominated; drop what it dominates. The first of two equals stays."""
    known = steps.setdefault(state, [])
    if not keep_pareto:
        if not known:
            known.append(new)
        elif new.weight < known[0].weight:
            known[0] = new
        return
    if any(k.weight <= new.weight and k.error <= new.error for k in known):
        return
    known[:] = [k for k in known if not (new.weight <= k.weight and new.error <= k.error)]
    known.append(new)
