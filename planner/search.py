"""Exact search of the cheapest plan of one forward, at one token count.

The forward is a layered graph of stages: embed_out, the layers, head_in. A stage offers *steps* from the state it is
entered in to the state it leaves: a step of a layer is a sequence of four ops. Layers of one kind offer the same steps,
so they are priced once per token count.

  minimise   sum of step weights            weight = time in ps, then numerics class, then number of ops
  subject to sum of squared errors <= E^2   (where the deployment gives an error budget)

Times are integer picoseconds: sums are exact, ties are real, and the result depends on no order of evaluation. One
integer holds the lexicographic weight. Without a budget `_cheapest` is a shortest path over the stages. With one it is a
resource-constrained shortest path (Handler and Zang 1980): `_budgeted` finds the multiplier that narrows the Lagrangian
gap, then settles what is left of the gap by label-setting, where a label is dropped if another is no worse in both
weight and error, or if its Lagrangian bound cannot beat the best plan known. Both are exact.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from .cost.op_costs import OpCosts
from .errors import NoLegalPlanError
from .graph import ERROR_UNIT, Boundary, Edge, ForwardGraph, GraphBuilder, LayerGraph
from .layout import LAYER_BOUNDARIES, State

_PS = 10**6  # picoseconds per microsecond
_TIME_SHIFT, _RANK_SHIFT = 40, 20  # time | numerics rank | number of ops, 20 bits for each of the last two


class Step(NamedTuple):
    """A way through a stage: weight, squared error (weighted), and the edges it takes."""

    weight: int
    error: int
    edges: tuple[Edge, ...]


Entry = State | None  # None: before embed_out
Steps = dict[Entry, dict[Entry, list[Step]]]  # entering state -> leaving state -> non-dominated steps


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


class Pricer:
    """Integer prices of edges and of layer-independent compute, one token count at a time."""

    def __init__(self, builder: GraphBuilder) -> None:
        self._costs: OpCosts = builder.costs
        self._memory = builder.memory
        self._setup = builder.setup
        limit = builder.setup.deployment.limits.activation_memory_gb
        self._limit_bytes = None if limit is None else limit * 1e9
        self._term_prices: dict[tuple[int, object], int] = {}
        self._edge_prices: dict[tuple[int, Edge], int] = {}

    def price_ps(self, edge: Edge, tokens: int) -> int:
        """Time of an edge at a token count, in ps."""
        key = (tokens, edge)
        price = self._edge_prices.get(key)
        if price is None:
            price = 0
            for term in edge.terms:
                term_key = (tokens, term)
                known = self._term_prices.get(term_key)
                if known is None:
                    known = round(self._costs.estimate(term, tokens).total_us * _PS)
                    self._term_prices[term_key] = known
                price += known
            self._edge_prices[key] = price
        return price

    def weight(self, edge: Edge, tokens: int) -> int:
        """Lexicographic weight: time, then numerics class, then whether it is an op at all."""
        is_op = edge.op.name not in ("none", "fused")
        return (self.price_ps(edge, tokens) << _TIME_SHIFT) + (edge.rank << _RANK_SHIFT) + is_op

    def fits(self, edge: Edge, tokens: int) -> bool:
        """False where the op would need more activation memory than the deployment allows."""
        if self._limit_bytes is None:
            return True
        return (
            self._memory.peak_bytes(edge.boundary, edge.op, edge.before, edge.after, edge.shape, tokens)
            <= self._limit_bytes
        )

    def plan_ps(self, plan: Plan, tokens: int) -> int:
        """Time of all ops of a plan at a token count, in ps."""
        return sum(count * self.price_ps(edge, tokens) for edge, count in plan.counted)


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
            weights = (round(a * a * _WEIGHT_UNIT), round(m * m * _WEIGHT_UNIT))
        key = (layer, weights)
        if key not in shared:
            shared[key] = _layer_steps(layer, pricer, tokens, weights, keep_pareto)
        stages.append(shared[key])
    stages.append(_one_boundary(graph.head_in, pricer, tokens))
    path = _cheapest(stages, lambda step: step.weight)
    if path is None:
        raise NoLegalPlanError(
            f"no plan of {graph.mode} at {tokens} tokens keeps within "
            f"{graph.setup.deployment.limits.activation_memory_gb} GB of activation memory",
            field="limits.activation_memory_gb",
            value=graph.setup.deployment.limits.activation_memory_gb,
        )
    if squared_error_budget is not None:
        path = _budgeted(stages, path, squared_error_budget * _WEIGHT_UNIT, graph)
    return Plan(path[0].edges[0], tuple(step.edges for step in path[1:-1]), path[-1].edges[0])


# ---- stages -----------------------------------------------------------------------------------------------------------

_WEIGHT_UNIT = 10**6  # resolution of squared sensitivity weights
_UNWEIGHTED = (_WEIGHT_UNIT, _WEIGHT_UNIT)


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


# ---- shortest path ------------------------------------------------------------------------------------------------------


def _cheapest(stages: list[Steps], weight: Callable[[Step], int]) -> list[Step] | None:
    """The path of least summed weight through the stages, or None."""
    best: dict[Entry, int] = {None: 0}
    trail: list[dict[Entry, tuple[Entry, Step]]] = []
    reduced: dict[int, dict[Entry, list[tuple[Entry, int, Step]]]] = {}
    for steps in stages:
        least = reduced.get(id(steps))
        if least is None:
            least = reduced[id(steps)] = {
                before: [
                    (after, *min(((weight(s), s) for s in options), key=lambda pair: pair[0]))
                    for after, options in by_after.items()
                ]
                for before, by_after in steps.items()
            }
        reached: dict[Entry, int] = {}
        came: dict[Entry, tuple[Entry, Step]] = {}
        for before, so_far in best.items():
            for after, cost, step in least.get(before, ()):
                total = so_far + cost
                if after not in reached or total < reached[after]:
                    reached[after] = total
                    came[after] = (before, step)
        best = reached
        trail.append(came)
    if not best:
        return None
    state: Entry = min(best, key=lambda s: best[s])
    path = []
    for came in reversed(trail):
        state, step = came[state]
        path.append(step)
    return path[::-1]


# ---- with an error budget -----------------------------------------------------------------------------------------------


def _total(path: list[Step]) -> tuple[int, int]:
    return sum(s.weight for s in path), sum(s.error for s in path)


def _budgeted(stages: list[Steps], cheapest: list[Step], budget: int, graph: ForwardGraph) -> list[Step]:
    """The cheapest path whose error keeps the budget."""
    over = cheapest
    over_weight, over_error = _total(over)
    if over_error <= budget:
        return over
    scale = over_weight + 1
    safest = _cheapest(stages, lambda s: s.error * scale + s.weight)  # least error, then least weight
    assert safest is not None
    _, best_error = _total(safest)
    if best_error > budget:
        numerics = graph.setup.deployment.numerics
        raise NoLegalPlanError(
            f"the plan with the least error in {graph.mode} has "
            f"{math.sqrt(best_error / _WEIGHT_UNIT / ERROR_UNIT):.4g}, above the budget",
            field="numerics.error_budget",
            value=numerics.error_budget,
        )
    best = safest
    while True:  # walk the lower hull of (error, weight) towards the budget
        p, q = _line_through(best, over)
        found = _cheapest(stages, lambda s, p=p, q=q: s.weight * q + s.error * p)  # type: ignore[misc]
        assert found is not None
        weight, error = _total(found)
        line_weight, line_error = _total(over)
        if weight * q + error * p >= line_weight * q + line_error * p:
            break
        if error <= budget:
            best = found
        else:
            over = found
    return _close_gap(stages, best, p, q, budget)


def _line_through(feasible: list[Step], infeasible: list[Step]) -> tuple[int, int]:
    """Multiplier p/q of the error at which both paths cost the same."""
    (w0, e0), (w1, e1) = _total(feasible), _total(infeasible)
    return w0 - w1, e1 - e0


class _Label(NamedTuple):
    """A partial path: its sums, and the label and step it came from."""

    weight: int
    error: int
    came: tuple[_Label, Step] | None


def _close_gap(stages: list[Steps], best: list[Step], p: int, q: int, budget: int) -> list[Step]:
    """Label-setting between the Lagrangian bound and the best path known."""
    bounds = _completion_bounds(stages, p, q)
    best_weight, _ = _total(best)
    fronts: dict[Entry, list[_Label]] = {None: [_Label(0, 0, None)]}
    for index, steps in enumerate(stages):
        bound = bounds[index + 1]
        after_fronts: dict[Entry, list[_Label]] = {}
        for before, labels in fronts.items():
            for after, options in steps.get(before, {}).items():
                if after not in bound:
                    continue
                combined, least_error = bound[after]
                target = after_fronts.setdefault(after, [])
                for label in labels:
                    for step in options:
                        w, e = label.weight + step.weight, label.error + step.error
                        if e + least_error > budget:
                            continue
                        if w * q + e * p + combined - budget * p >= best_weight * q:
                            continue
                        target.append(_Label(w, e, (label, step)))
        fronts = {state: _pareto(labels) for state, labels in after_fronts.items()}
    ends = [label for labels in fronts.values() for label in labels]
    if not ends:
        return best
    path: list[Step] = []
    last = min(ends, key=lambda end: (end.weight, end.error))
    while last.came is not None:
        last, step = last.came
        path.append(step)
    return path[::-1]


def _pareto(labels: list[_Label]) -> list[_Label]:
    kept: list[_Label] = []
    for label in sorted(labels, key=lambda item: (item.weight, item.error)):
        if not kept or label.error < kept[-1].error:
            kept.append(label)
    return kept


def _completion_bounds(stages: list[Steps], p: int, q: int) -> list[dict[Entry, tuple[int, int]]]:
    """Per stage and entering state: least of weight*q + error*p to the end, and least error to the end."""
    last: dict[Entry, tuple[int, int]] = {after: (0, 0) for by_after in stages[-1].values() for after in by_after}
    bounds: list[dict[Entry, tuple[int, int]]] = [last]
    reduced: dict[int, dict[Entry, list[tuple[Entry, int, int]]]] = {}
    for steps in reversed(stages):
        least = reduced.get(id(steps))
        if least is None:
            least = reduced[id(steps)] = {
                before: [
                    (after, min(s.weight * q + s.error * p for s in options), min(s.error for s in options))
                    for after, options in by_after.items()
                ]
                for before, by_after in steps.items()
            }
        following = bounds[-1]
        current: dict[Entry, tuple[int, int]] = {}
        for before, options in least.items():
            ways = [(c + following[a][0], e + following[a][1]) for a, c, e in options if a in following]
            if ways:
                current[before] = (min(w for w, _ in ways), min(e for _, e in ways))
        bounds.append(current)
    return bounds[::-1]
