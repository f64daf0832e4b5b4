"""The cheapest path whose summed squared error keeps a budget: a resource-constrained shortest path, solved exactly.

`within_budget` walks the lower hull of (error, weight) to the multiplier that narrows the Lagrangian gap (Handler and
Zang 1980). What is left of the gap is settled by label-setting, where a label is dropped if another is no worse in both
weight and error, or if its Lagrangian bound cannot beat the best path known.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from .errors import NoLegalPlanError
from .graph import ERROR_UNIT, ForwardGraph
from .shortest_path import Entry, Step, Steps, cheapest_path

WEIGHT_UNIT = 10**6  # resolution of squared sensitivity weights


def _total(path: list[Step]) -> tuple[int, int]:
    return sum(s.weight for s in path), sum(s.error for s in path)


def within_budget(stages: list[Steps], cheapest: list[Step], budget: int, graph: ForwardGraph) -> list[Step]:
    """The cheapest path whose error keeps the budget."""
    over = cheapest
    over_weight, over_error = _total(over)
    if over_error <= budget:
        return over
    scale = over_weight + 1
    safest = cheapest_path(stages, lambda s: s.error * scale + s.weight)  # least error, then least weight
    assert safest is not None
    _, best_error = _total(safest)
    if best_error > budget:
        numerics = graph.setup.deployment.numerics
        raise NoLegalPlanError(
            f"the plan with the least error in {graph.mode} has "
            f"{math.sqrt(best_error / WEIGHT_UNIT / ERROR_UNIT):.4g}, above the budget",
            field="numerics.error_budget",
            value=numerics.error_budget,
        )
    best = safest
    while True:  # walk the lower hull of (error, weight) towards the budget
        p, q = _line_through(best, over)
        found = cheapest_path(stages, lambda s, p=p, q=q: s.weight * q + s.error * p)  # type: ignore[misc]
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
