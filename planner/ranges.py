"""From the best plan at a token count to the fewest token ranges that lose almost nothing.

Costs are piecewise smooth in the token count. Their kinks are known: the knots of the tables, and the multiples of tp
at which a padded shard grows. The search runs at the kinks and on a geometric grid between them, on both sides of a
multiple of tp, then bisects wherever two neighbouring counts want different plans. Ranges are then grown greedily, each
with the plan that keeps within the tolerance of the per-count optimum the longest; the edge between two ranges moves
back to where the second plan becomes the cheaper one. The greatest loss seen is recorded with each range.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from .graph import ForwardGraph
from .search import Plan, Pricer

_DENSE = 32  # up to this many tokens every count is looked at
_GRID_RATIO = 1.5
_MAX_CANDIDATES = 64


@dataclass(frozen=True, slots=True)
class PlannedRange:
    """One plan over [first, last] tokens, with its greatest relative loss against the best plan at any looked-at count."""

    first: int
    last: int
    plan: Plan
    worst_loss: float


class RangeSearch:
    """Plans one forward mode over a span of token counts.

    `best_plan(tokens)` is the exact search; `fixed_ps(tokens)` the time that no plan changes, to which losses relate.
    """

    def __init__(
        self,
        graph: ForwardGraph,
        pricer: Pricer,
        best_plan: Callable[[int], Plan],
        fixed_ps: Callable[[int], int],
        tolerance: float,
    ) -> None:
        self._graph, self._pricer, self._search, self._fixed = graph, pricer, best_plan, fixed_ps
        self._tolerance = tolerance
        self._best: dict[int, Plan] = {}
        self._known: dict[tuple[int, ...], Plan] = {}

    def ranges(self, first: int, last: int, kinks: set[int]) -> list[PlannedRange]:
        """The ranges of [first, last], in order, without gap."""
        counts = self._sample(first, last, kinks)
        for a, b in zip(counts, counts[1:], strict=False):
            self._bisect(a, b)
        counts = sorted(self._best)
        chosen = self._grow(counts)
        return self._place_edges(chosen, counts, last)

    def _sample(self, first: int, last: int, kinks: set[int]) -> list[int]:
        tp = self._graph.setup.parallelism.tp
        counts = {first, last, *range(first, min(last, first + _DENSE - 1) + 1)}
        grid = float(max(first, 1))
        while grid < last:
            counts |= self._around(round(grid), tp)
            grid *= _GRID_RATIO
        for kink in kinks:
            counts |= self._around(kink, tp)
        inside = sorted(count for count in counts if first <= count <= last)
        for count in inside:
            self._plan_at(count)
        return inside

    @staticmethod
    def _around(count: int, tp: int) -> set[int]:
        aligned = count // tp * tp
        return {aligned, aligned + 1}

    def _plan_at(self, tokens: int) -> Plan:
        plan = self._best.get(tokens)
        if plan is None:
            plan = self._search(tokens)
            key = tuple(id(edge) for edge in plan.edges)
            plan = self._best[tokens] = self._known.setdefault(key, plan)
        return plan

    def _bisect(self, a: int, b: int) -> None:
        """Find where the best plan changes between two looked-at counts, to within one count or 0.1 %."""
        while b - a > max(1, a // 1000):
            plan_a, plan_b = self._best[a], self._best[b]
            if plan_a is plan_b or self._alike(plan_a, plan_b, a, b):
                return
            middle = (a + b) // 2
            plan = self._plan_at(middle)
            if plan is plan_a:
                a = middle
            elif plan is plan_b:
                b = middle
            else:
                self._bisect(a, middle)
                a = middle

    def _alike(self, plan_a: Plan, plan_b: Plan, a: int, b: int) -> bool:
        """True if either plan would do at both counts: no edge need lie between them."""
        return self._loss(plan_a, b) <= self._tolerance / 4 and self._loss(plan_b, a) <= self._tolerance / 4

    def _loss(self, plan: Plan, tokens: int) -> float:
        best = self._best[tokens]
        if plan is best:
            return 0.0
        if not all(self._pricer.fits(edge, tokens) for edge, _ in plan.counted):
            return float("inf")
        optimum = self._pricer.plan_ps(best, tokens)
        return (self._pricer.plan_ps(plan, tokens) - optimum) / max(1, optimum + self._fixed(tokens))

    def _grow(self, counts: list[int]) -> list[tuple[int, int, Plan]]:
        """Greedy cover of the counts: (index of first, index of last, plan)."""
        chosen = []
        start = 0
        while start < len(counts):
            best_end, best_total, best_plan = -1, 0.0, self._best[counts[start]]
            for plan in self._candidates(counts, start):
                end, total = self._reach(plan, counts, start)
                if end > best_end or (end == best_end and total < best_total):
                    best_end, best_total, best_plan = end, total, plan
            chosen.append((start, best_end, best_plan))
            start = best_end + 1
        return chosen

    def _candidates(self, counts: list[int], start: int) -> list[Plan]:
        found: dict[int, Plan] = {}
        for count in counts[start:]:
            plan = self._best[count]
            found.setdefault(id(plan), plan)
            if len(found) >= _MAX_CANDIDATES:
                break
        return list(found.values())

    def _reach(self, plan: Plan, counts: list[int], start: int) -> tuple[int, float]:
        """Index of the last count up to which the plan keeps within the tolerance, and the loss summed on the way."""
        total, end = 0.0, start - 1
        for index in range(start, len(counts)):
            loss = self._loss(plan, counts[index])
            if loss > self._tolerance:
                break
            total += loss
            end = index
        return end, total

    def _place_edges(self, chosen: list[tuple[int, int, Plan]], counts: list[int], last: int) -> list[PlannedRange]:
        starts = [counts[chosen[0][0]]]
        for (start, end, plan), (_, _, following) in zip(chosen, chosen[1:], strict=False):
            starts.append(self._edge(plan, following, counts, start, end))
        ends = [*(s - 1 for s in starts[1:]), last]
        result = []
        for (_, _, plan), first, final in zip(chosen, starts, ends, strict=True):
            inside = counts[bisect_right(counts, first - 1) : bisect_right(counts, final)]
            worst = max((self._loss(plan, count) for count in inside), default=0.0)
            result.append(PlannedRange(first, final, plan, worst))
        return result

    def _edge(self, plan: Plan, following: Plan, counts: list[int], start: int, end: int) -> int:
        """First token count of the following range: where its plan becomes the cheaper one for good."""

        def prefers_following(tokens: int) -> bool:
            fits = all(self._pricer.fits(edge, tokens) for edge, _ in following.counted)
            return fits and self._pricer.plan_ps(following, tokens) < self._pricer.plan_ps(plan, tokens)

        index = end
        while index > start and prefers_following(counts[index]):
            index -= 1
        low, high = counts[index], counts[index + 1]
        while high - low > 1:
            middle = (low + high) // 2
            if prefers_following(middle):
                high = middle
            else:
                low = middle
        return high
