"""The cheapest path whose summed squared error keeps a budget: a resource-constrained shortest path.

`within_budget` walks the lower hull of (error, weight) to the multiplier that narrows the Lagrangian gap (Handler and
Zang 1980), and spends what the path found there leaves of the budget, step by step. If the gap that is left is wider
than the caller allows, label-setting closes it: a label is dropped if another is no worse in both weight and error, or
if its Lagrangian bound cannot beat the best path known. Where most layers are alike, `alike` does that with far fewer
labels. With no gap allowed the result is exact.
"""

from __future__ import annotations

from bisect import bisect_left
from operator import itemgetter
from typing import NamedTuple

from ..strategy.errors import NoLegalPlanError
from .alike import AlikeLayers, Way, longest_run
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
        path = _gap_closed(stages, path, bound, hull.multiplier, budget)
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
    left = budget - _total(path)[1]
    lighter: list[tuple[float, int, Step]] = []
    safer: list[tuple[float, int, Step]] = []
    known: dict[tuple[int, int], tuple[list[tuple[float, Step]], list[tuple[float, Step]]]] = {}
    for index, (steps, step) in enumerate(zip(stages, path, strict=True)):
        key = (id(steps), id(step))
        if key not in known:
            known[key] = _exchanges(steps[entries[index]][entries[index + 1]], step)
        lighter += [(rate, index, other) for rate, other in known[key][0]]
        if left < 0:
            safer += [(rate, index, other) for rate, other in known[key][1]]
    result = list(path)
    if left < 0:
        safer.sort(key=itemgetter(0))  # and by the stage, in whose order they are
        for _, index, other in safer:
            if other[1] < result[index][1]:
                left += result[index][1] - other[1]
                result[index] = other
                if left >= 0:
                    break
        if left < 0:
            return None
    lighter.sort(key=itemgetter(0))
    for _, index, other in lighter:
        more = other[1] - result[index][1]
        if other[0] < result[index][0] and more <= left:
            result[index] = other
            left -= more
    return result


def _exchanges(options: list[Step], step: Step) -> tuple[list[tuple[float, Step]], list[tuple[float, Step]]]:
    """The options that are lighter than a step, and those that are safer, with what they change per error."""
    lighter, safer = [], []
    for other in options:
        saved, more = step[0] - other[0], other[1] - step[1]
        if saved > 0:
            lighter.append((-saved / max(1, more), other))
        elif more < 0:
            safer.append((saved / more, other))
    return lighter, safer


# ---- the gap --------------------------------------------------------------------------------------------------------


_Fronts = dict[Entry, list[int]]  # partial paths by the state they end in; sums as one integer, see `_Labels`
_FIRST_CEILING = 3  # bits by which the first ceiling is nearer to the bound than the best path known is
_CEILING_GROWTH = 2  # bits by which the next one is farther from it


def _gap_closed(
    stages: list[Steps], best: list[Step], hull_bound: int, multiplier: Multiplier, budget: int
) -> list[Step]:
    """The path of least weight, then of least error: the best one known, or what a search below its weight finds.

    Labels grow in number with the distance of the ceiling from the bound, and the optimum is often near the bound. So
    the ceiling starts low and rises until a path below it is found.
    """
    weight = _total(best)[0]
    bounds = _completion_bounds(stages, multiplier)
    run = longest_run(stages)
    if run is not None:
        labels = _Labels(stages[: run.first], bounds, multiplier, budget, weight)
        return AlikeLayers(stages, run, labels.ways(), multiplier, budget, weight).path() or best
    distance = (weight - hull_bound) >> _FIRST_CEILING
    while True:
        ceiling = min(weight, hull_bound + distance)
        labels = _Labels(stages, bounds, multiplier, budget, ceiling)
        least = labels.least()
        if least is not None and (least < ceiling or least <= weight == ceiling):
            return labels.best() or best
        if ceiling == weight:
            return best  # which spends all of the budget, or nothing is below it
        if least is not None:
            # Not shown to be the optimum: of what weighs as much as the ceiling, or more, some is left out.
            weight = min(weight, least)
        distance = max(1, distance << _CEILING_GROWTH)


class _Labels:
    """Label-setting between the Lagrangian bound and a ceiling.

    A label is a partial path, `weight << bits | error`: a step adds to both at once, and labels sort by weight. Which
    steps led to it is found out for the best one alone.
    """

    def __init__(
        self,
        stages: list[Steps],
        bounds: list[dict[Entry, tuple[int, int]]],
        multiplier: Multiplier,
        budget: int,
        ceiling: int,
    ) -> None:
        self._stages, self._multiplier, self._budget = stages, multiplier, budget
        most = max((s[1] for steps in stages for by in steps.values() for o in by.values() for s in o), default=0)
        self._bits = (budget + most).bit_length()
        self._most = ceiling * multiplier.per_weight + budget * multiplier.per_error
        self._levels: list[_Fronts] = [{None: [0]}]
        packed: dict[int, dict[Entry, dict[Entry, list[tuple[int, int]]]]] = {}
        for steps, bound in zip(stages, bounds[1:], strict=False):
            if id(steps) not in packed:
                packed[id(steps)] = self._packed(steps)
            self._levels.append(self._advanced(self._levels[-1], packed[id(steps)], bound))

    def _packed(self, steps: Steps) -> dict[Entry, dict[Entry, list[tuple[int, int]]]]:
        """The steps as labels, each with its combined cost."""
        q, p = self._multiplier
        return {
            before: {after: [(s[0] << self._bits | s[1], s[0] * q + s[1] * p) for s in o] for after, o in by.items()}
            for before, by in steps.items()
        }

    def _sums(self, label: int) -> tuple[int, int]:
        return label >> self._bits, label & ((1 << self._bits) - 1)

    def _advanced(
        self,
        fronts: _Fronts,
        steps: dict[Entry, dict[Entry, list[tuple[int, int]]]],
        bound: dict[Entry, tuple[int, int]],
    ) -> _Fronts:
        found: dict[Entry, set[int]] = {}
        (q, p), bits, mask = self._multiplier, self._bits, (1 << self._bits) - 1
        for before, labels in fronts.items():
            costs = [(label >> bits) * q + (label & mask) * p for label in labels]
            order = sorted(range(len(labels)), key=costs.__getitem__)
            by_cost, costs = [labels[i] for i in order], [costs[i] for i in order]
            for after, options in steps.get(before, {}).items():
                if after in bound:
                    known = found.setdefault(after, set())
                    most = self._most - bound[after][0]
                    for step, cost in options:
                        known.update([label + step for label in by_cost[: bisect_left(costs, most - cost)]])
        return {state: self.undominated(labels, self._budget - bound[state][1]) for state, labels in found.items()}

    def undominated(self, labels: set[int], most_error: int) -> list[int]:
        """Those that keep an error, by rising weight and falling error."""
        kept, mask, least = [], (1 << self._bits) - 1, most_error + 1
        for label in sorted(labels):
            error = label & mask
            if error < least:
                kept.append(label)
                least = error
        return kept

    def least(self) -> int | None:
        """The least weight at the end, or None if nothing got there."""
        return min((label >> self._bits for labels in self._levels[-1].values() for label in labels), default=None)

    def best(self) -> list[Step] | None:
        """The path of least weight, then of least error."""
        ends = [(label, state) for state, labels in self._levels[-1].items() for label in labels]
        return self._path(*min(ends, key=itemgetter(0))) if ends else None

    def ways(self) -> dict[Entry, list[Way]]:
        """All paths that are left, by the state they end in."""
        return {
            state: [Way(*self._sums(label), tuple(self._path(label, state))) for label in labels]
            for state, labels in self._levels[-1].items()
        }

    def _path(self, label: int, state: Entry) -> list[Step]:
        """The steps to a label: of equal ones, from the last back, those from the first state, then the heaviest."""
        path: list[Step] = []
        for steps, fronts in zip(reversed(self._stages), reversed(self._levels[:-1]), strict=True):
            state, label, step = next(
                (before, label - own, step)
                for before, labels in fronts.items()
                for step in reversed(steps.get(before, {}).get(state, []))
                if _holds(labels, label - (own := step[0] << self._bits | step[1]))
            )
            path.append(step)
        return path[::-1]


def _holds(labels: list[int], label: int) -> bool:
    """True if a sorted list has a label."""
    index = bisect_left(labels, label)
    return index < len(labels) and labels[index] == label


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
