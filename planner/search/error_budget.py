"""The cheapest path whose summed squared error keeps a budget: a resource-constrained shortest path.

`within_budget` walks the lower hull of (error, weight) to the multiplier that narrows the Lagrangian gap (Handler and
Zang 1980), and spends what the path found there leaves of the budget, step by step. If the gap that is left is wider
than the caller allows, label-setting closes it: a label is dropped if another is no worse in both weight and error, or
if its Lagrangian bound cannot beat the best path known. With no gap allowed the result is exact.
"""

from __future__ import annotations

from operator import itemgetter
from typing import NamedTuple

from ..strategy.errors import NoLegalPlanError
from .graph import ForwardGraph
from .shortest_path import Entry, Step, Steps, cheapest_path

_PRECISION = 20  # bits behind the point of a scaled multiplier


class Multiplier(NamedTuple):
    """The price of error: `per_error / per_weight` units of weight for one of error."""

    per_weight: int
    per_error: int


class Near(NamedTuple):
    """Where a search at a near token count may start from: a multiplier, and the least weight where it was found."""

    multiplier: Multiplier
    least_weight: int

    def scaled(self, least_weight: int) -> Multiplier:
        """The multiplier where times have changed as the least weight has."""
        per_error = (self.multiplier.per_error * least_weight << _PRECISION) // (
            self.multiplier.per_weight * self.least_weight
        )
        return Multiplier(1 << _PRECISION, per_error)


class WithinBudget(NamedTuple):
    """A path that keeps the budget, a weight that none is below, and where a near search may start."""

    path: list[Step]
    bound: int
    near: Near | None


def within_budget(
    stages: list[Steps],
    cheapest: list[Step],
    budget: int,
    graph: ForwardGraph,
    slack: int = 0,
    near: Near | None = None,
) -> WithinBudget:
    """A path whose error keeps the budget, and whose weight is at most `slack` above the least.

    `cheapest` is the path of least weight, whatever its error.
    """
    least_weight, error = _total(cheapest)
    if error <= budget:
        return WithinBudget(cheapest, least_weight, near)
    hull = _Hull(stages, budget, cheapest)
    if near is not None and slack:
        hull.look(near.scaled(least_weight))
    if hull.gap is None or hull.gap > slack:
        hull.add(_safest(stages, least_weight + 1, budget, graph))
        while hull.gap is None or hull.gap > slack:
            if not hull.narrow():
                break
    path, bound = hull.best, hull.bound
    assert path is not None
    if _total(path)[0] - bound > slack:
        path = _gap_closed(stages, path, hull.multiplier, budget)
        bound = _total(path)[0]
    return WithinBudget(path, bound, Near(hull.multiplier, least_weight))


def _total(path: list[Step]) -> tuple[int, int]:
    return sum([s[0] for s in path]), sum([s[1] for s in path])


def _safest(stages: list[Steps], scale: int, budget: int, graph: ForwardGraph) -> list[Step]:
    """The path of least error, then of least weight, which is below `scale`."""
    safest = cheapest_path(stages, 1, scale)
    assert safest is not None
    _, error = _total(safest)
    if error > budget:
        numerics = graph.setup.deployment.numerics
        raise NoLegalPlanError(
            f"the plan with the least error in {graph.mode} has {graph.damage.spelled(error)}, above the budget",
            field=f"numerics.{graph.damage.field}",
            value=getattr(numerics, graph.damage.field),
        )
    return safest


# ---- the hull -------------------------------------------------------------------------------------------------------


class _Hull:
    """The vertices seen of the lower hull of (error, weight), next to the budget, and what they tell of the optimum."""

    def __init__(self, stages: list[Steps], budget: int, cheapest: list[Step]) -> None:
        self._stages, self._budget = stages, budget
        self._below: tuple[int, int] | None = None  # (weight, error) of the lightest vertex within the budget
        self._above = _total(cheapest)  # of the vertex of least error beyond it
        self.best: list[Step] | None = None  # the lightest path within the budget
        self.bound = self._above[0]
        self.multiplier = Multiplier(1, 0)

    @property
    def gap(self) -> int | None:
        """What the best path may weigh too much."""
        return None if self.best is None else _total(self.best)[0] - self.bound

    def add(self, path: list[Step]) -> None:
        """Take note of a vertex, and of the best path near it that keeps the budget."""
        weight, error = _total(path)
        if error > self._budget:
            self._above = min(self._above, (weight, error), key=itemgetter(1))
        elif self._below is None or weight < self._below[0]:
            self._below = (weight, error)
        near = _spent(self._stages, path, self._budget)
        if near is not None and (self.best is None or _total(near)[0] < _total(self.best)[0]):
            self.best = near

    def look(self, multiplier: Multiplier) -> int:
        """Find the vertex that a multiplier leads to, and the bound it gives; returns its combined cost."""
        path = cheapest_path(self._stages, *multiplier)
        assert path is not None
        q, p = multiplier
        weight, error = _total(path)
        least = weight * q + error * p
        bound = -((self._budget * p - least) // q)
        if bound >= self.bound:
            self.bound, self.multiplier = bound, multiplier
        self.add(path)
        return least

    def narrow(self) -> bool:
        """Look along the slope between the two vertices next to the budget; False if nothing is below that line."""
        assert self._below is not None
        (w0, e0), (w1, e1) = self._below, self._above
        multiplier = Multiplier(e1 - e0, w0 - w1)
        return self.look(multiplier) < w1 * multiplier.per_weight + e1 * multiplier.per_error


def _spent(stages: list[Steps], path: list[Step], budget: int) -> list[Step] | None:
    """The path with single steps exchanged: for less error until it keeps the budget, then for less weight within it.

    None if no exchange of single steps gets there.
    """
    entries: list[Entry] = [None, *(step.edges[-1].after for step in path)]
    lighter, safer = [], []
    for index, (steps, step) in enumerate(zip(stages, path, strict=True)):
        for other in steps[entries[index]][entries[index + 1]]:
            saved, more = step[0] - other[0], other[1] - step[1]
            if saved > 0:
                lighter.append((-saved / max(1, more), index, other))
            elif more < 0:
                safer.append((saved / more, index, other))
    result = list(path)
    left = budget - _total(path)[1]
    if left < 0:
        safer.sort(key=itemgetter(0, 1))
        for _, index, other in safer:
            if other[1] < result[index][1]:
                left += result[index][1] - other[1]
                result[index] = other
                if left >= 0:
                    break
        if left < 0:
            return None
    lighter.sort(key=itemgetter(0, 1))
    for _, index, other in lighter:
        more = other[1] - result[index][1]
        if other[0] < result[index][0] and more <= left:
            result[index] = other
            left -= more
    return result


# ---- the gap --------------------------------------------------------------------------------------------------------


class _Label(NamedTuple):
    """A partial path: its sums, and the label and step it came from."""

    weight: int
    error: int
    came: tuple[_Label, Step] | None


def _gap_closed(stages: list[Steps], best: list[Step], multiplier: Multiplier, budget: int) -> list[Step]:
    """Label-setting between the Lagrangian bound and the best path known."""
    q, p = multiplier
    bounds = _completion_bounds(stages, multiplier)
    ceiling = _total(best)[0] * q + budget * p
    fronts: dict[Entry, list[_Label]] = {None: [_Label(0, 0, None)]}
    for index, steps in enumerate(stages):
        bound = bounds[index + 1]
        after_fronts: dict[Entry, list[_Label]] = {}
        for before, labels in fronts.items():
            for after, options in steps.get(before, {}).items():
                if after not in bound:
                    continue
                combined, least_error = bound[after]
                most_combined, most_error = ceiling - combined, budget - least_error
                target = after_fronts.setdefault(after, [])
                for label in labels:
                    for step in options:
                        error = label[1] + step[1]
                        if error > most_error:
                            continue
                        weight = label[0] + step[0]
                        if weight * q + error * p >= most_combined:
                            continue
                        target.append(_Label(weight, error, (label, step)))
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


def _completion_bounds(stages: list[Steps], multiplier: Multiplier) -> list[dict[Entry, tuple[int, int]]]:
    """Per stage and entering state: least combined cost to the end, and least error to the end."""
    q, p = multiplier
    last: dict[Entry, tuple[int, int]] = {after: (0, 0) for by_after in stages[-1].values() for after in by_after}
    bounds: list[dict[Entry, tuple[int, int]]] = [last]
    reduced: dict[int, dict[Entry, list[tuple[Entry, int, int]]]] = {}
    for steps in reversed(stages):
        least = reduced.get(id(steps))
        if least is None:
            least = reduced[id(steps)] = {
                before: [
                    (after, min(s[0] * q + s[1] * p for s in options), min(s[1] for s in options))
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
