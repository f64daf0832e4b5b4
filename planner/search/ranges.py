"""From the best plan at a token count to the fewest token ranges that lose almost nothing.

Costs are piecewise smooth in the token count, with known kinks: the knots of the tables, and the multiples of tp at
which a padded shard grows. Between two multiples of tp the padded ops cost the same and the others grow, so the counts
that share a shard size form a *cell*, and its two ends show the extremes. Up to two full shards a cell is one count.

The search runs at the ends of the cells that hold a kink or a point of a geometric grid, and bisects wherever two
neighbouring cells want different plans. Ranges are then grown greedily, each with the plan that keeps the longest
within the tolerance of the per-count optimum. The tolerance buys fewer ranges and is not paid in accuracy: where the
optimum quantises nothing, no plan that does serves, however little it loses. Where one cell wants two plans, no range
can please it: there the tolerance is what the best single plan of that cell loses. The edge between two ranges finally
moves back to the first cell in which the second plan is the cheaper one. The greatest loss seen is recorded with each
range.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Set
from dataclasses import dataclass
from itertools import pairwise

from ..strategy.errors import NoLegalPlanError
from .cheapest_plan import Found
from .graph import ForwardGraph, Plan
from .pricing import Pricer

_GRID_RATIO = 1.5
_NEAR = 1.1
_MAX_CANDIDATES = 64
_MOST_CELLS, _FEW_CELLS, _EVERY = 128, 16, 8
_WORST_CELLS = 3


@dataclass(frozen=True, slots=True)
class PlannedRange:
    """One plan over [first, last] tokens, with its greatest relative loss against the best plan of any count seen."""

    first: int
    last: int
    plan: Plan
    worst_loss: float


@dataclass(frozen=True, slots=True)
class Cell:
    """Token counts [first, last] of one shard size."""

    first: int
    last: int

    @property
    def ends(self) -> tuple[int, ...]:
        """The counts at which a cell is looked at."""
        return (self.first,) if self.first == self.last else (self.first, self.last)


class RangeSearch:
    """Plans one forward mode over a span of token counts.

    `find(tokens)` finds the best plan of a count, or one as good with a bound that shows it; `fixed_ps(tokens)` is the
    time that no plan changes, to which losses relate. `limits` are the last counts whose messages some impl takes: a
    cell ends there. `single`: one plan for the whole span, whatever it loses.
    """

    def __init__(
        self,
        graph: ForwardGraph,
        pricer: Pricer,
        find: Callable[[int], Found],
        fixed_ps: Callable[[int], int],
        tolerance: float,
        limits: Set[int] = frozenset(),
        single: bool = False,
    ) -> None:
        self._single = single
        self._tp = graph.setup.parallelism.tp
        self._limits = sorted(limits)
        self._pricer, self._find, self._fixed = pricer, find, fixed_ps
        self._tolerance = tolerance
        self._best: dict[int, Plan] = {}
        self._least: dict[int, int] = {}
        self._known: dict[tuple[int, ...], Plan] = {}
        self._span = (1, 1)

    def ranges(self, first: int, last: int, kinks: set[int]) -> list[PlannedRange]:
        """The ranges of [first, last], in order, without gap."""
        self._span = (first, last)
        cells = {self._cell(count) for count in self._interesting(first, last, kinks)}
        ordered = sorted(cells, key=lambda cell: cell.first)
        for a, b in pairwise(ordered):
            cells |= self._bisected(a, b)
        ordered = sorted(cells, key=lambda cell: cell.first)
        chosen = [self._for_all(ordered)] if self._single else self._grow(ordered)
        return self._place_edges(chosen, ordered)

    # ---- where to look ----------------------------------------------------------------------------------------------

    def _interesting(self, first: int, last: int, kinks: set[int]) -> set[int]:
        counts = {first, last, *range(first, min(last, 2 * self._tp) + 1)}
        grid = float(first)
        while grid < last:
            counts.add(round(grid))
            grid *= _GRID_RATIO
        near = 0.0
        for kink in sorted(kinks):  # several tables have knots side by side: one of them is enough
            if kink > near * _NEAR:
                counts.add(kink)
                near = kink
        counts |= {limit + side for limit in self._limits for side in (0, 1)}
        return {count for count in counts if first <= count <= last}

    def _cell(self, count: int) -> Cell:
        """The cell of a count, clipped to the span."""
        if count <= 2 * self._tp:
            return Cell(count, count)
        shards = -(-count // self._tp)
        first, last = self._span
        first, last = max(first, (shards - 1) * self._tp + 1), min(last, shards * self._tp)
        at = bisect_left(self._limits, count)  # the first limit that is not below the count
        if at < len(self._limits):
            last = min(last, self._limits[at])
        if at > 0:
            first = max(first, self._limits[at - 1] + 1)
        return Cell(first, last)

    def _bisected(self, a: Cell, b: Cell) -> set[Cell]:
        """Cells between two looked-at ones, down to where the best plan changes (or to 0.1 % of the count)."""
        if b.first - a.last <= max(1, a.last // 1000) or self._alike(a, b):
            return set()
        middle = self._cell((a.last + b.first) // 2)
        if middle in (a, b):
            return set()
        return {middle} | self._bisected(a, middle) | self._bisected(middle, b)

    def _alike(self, a: Cell, b: Cell) -> bool:
        """True if what is best in one cell would do in the other: no edge need lie between them."""
        near = self._tolerance / 4
        return self._loss(self._plan_at(a.last), b.last) <= near and self._loss(self._plan_at(b.last), a.last) <= near

    # ---- losses -----------------------------------------------------------------------------------------------------

    def _plan_at(self, tokens: int) -> Plan:
        plan = self._best.get(tokens)
        if plan is None:
            plan, self._least[tokens], _ = self._find(tokens)
            key = tuple(id(edge) for edge in plan.edges)
            plan = self._best[tokens] = self._known.setdefault(key, plan)
        return plan

    def _loss(self, plan: Plan, tokens: int) -> float:
        """How much longer a step takes than it must: at most this, where the best plan is known by a bound alone."""
        if not self._serves(plan, tokens):
            return float("inf")
        least = self._least[tokens]
        return (self._pricer.plan_ps(plan, tokens) - least) / max(1, least + self._fixed(tokens))

    def _serves(self, plan: Plan, tokens: int) -> bool:
        """True if a plan keeps to the limits at a count, and quantises only where the best one there does."""
        best = self._plan_at(tokens)
        if plan is best:
            return True
        fits = all(self._pricer.fits(edge, tokens) for edge, _ in plan.counted)
        return fits and (_quantizes(best) or not _quantizes(plan))

    def _cell_loss(self, plan: Plan, cell: Cell) -> float:
        return max(self._loss(plan, count) for count in cell.ends)

    def _allowed(self, cell: Cell) -> float:
        """The tolerance, or what the best single plan of the cell loses."""
        return max(self._tolerance, min(self._cell_loss(self._plan_at(count), cell) for count in cell.ends))

    # ---- ranges -----------------------------------------------------------------------------------------------------

    def _grow(self, cells: list[Cell]) -> list[tuple[int, int, Plan]]:
        """Greedy cover of the cells: (index of first, index of last, plan)."""
        allowed = [self._allowed(cell) for cell in cells]
        chosen = []
        start = 0
        while start < len(cells):
            best_end, best_total, best_plan = -1, 0.0, self._plan_at(cells[start].last)
            for plan in self._candidates(cells, start):
                end, total = self._reach(plan, cells, allowed, start)
                if end > best_end or (end == best_end and total < best_total):
                    best_end, best_total, best_plan = end, total, plan
            chosen.append((start, best_end, best_plan))
            start = best_end + 1
        return chosen

    def _for_all(self, cells: list[Cell]) -> tuple[int, int, Plan]:
        """The plan that loses least where it loses most, over all cells; raises NoLegalPlanError where none serves."""
        plans = self._candidates(cells, 0)
        losses = [[self._cell_loss(plan, cell) for cell in cells] for plan in plans]
        worst, _, index = min((max(each), sum(each), n) for n, each in enumerate(losses))
        if worst == float("inf"):
            raise NoLegalPlanError(
                f"no plan serves all token counts of {self._span}: what is best at some of them is refused, or takes "
                "more memory than there is, at others",
                field="numerics.batch_invariant",
                value=True,
            )
        return 0, len(cells) - 1, plans[index]

    def _candidates(self, cells: list[Cell], start: int) -> list[Plan]:
        found: dict[int, Plan] = {}
        for cell in cells[start:]:
            for count in cell.ends:
                plan = self._plan_at(count)
                found.setdefault(id(plan), plan)
            if len(found) >= _MAX_CANDIDATES:
                break
        return list(found.values())

    def _reach(self, plan: Plan, cells: list[Cell], allowed: list[float], start: int) -> tuple[int, float]:
        """Index of the last cell up to which the plan loses no more than allowed, and the loss summed on the way."""
        total, end = 0.0, start - 1
        for index in range(start, len(cells)):
            loss = self._cell_loss(plan, cells[index])
            if loss > allowed[index]:
                break
            total += loss
            end = index
        return end, total

    def _place_edges(self, chosen: list[tuple[int, int, Plan]], cells: list[Cell]) -> list[PlannedRange]:
        starts = [cells[0].first]
        for (start, end, plan), (_, _, following) in pairwise(chosen):
            starts.append(self._edge(plan, following, cells, start, end))
        ends = [*(s - 1 for s in starts[1:]), cells[-1].last]
        result = []
        for (_, _, plan), first, last in zip(chosen, starts, ends, strict=True):
            looked_at = [*cells, self._cell(first), self._cell(last)]
            worst = self._worst(plan, looked_at, first, last)
            if worst > self._tolerance:  # a cell wants two plans; so may its neighbours, each by a little more or less
                worst = max(worst, self._worst(plan, self._more_cells(first, last), first, last))
            result.append(PlannedRange(first, last, plan, worst))
        return result

    def _worst(self, plan: Plan, cells: list[Cell], first: int, last: int) -> float:
        """The greatest loss at the ends of cells, and just before the last count of the worst of them: that count is
        the only one of its cell for which nothing is padded."""
        losses = {count: self._loss(plan, count) for count in (first, last)}
        for cell in cells:
            losses |= {count: self._loss(plan, count) for count in cell.ends if first <= count <= last}
        worst = sorted(losses, key=lambda count: (-losses[count], count))[:_WORST_CELLS]
        before = {max(first, min(last, self._cell(count).last - 1)) for count in worst}
        return max(*losses.values(), *(self._loss(plan, count) for count in before))

    def _more_cells(self, first: int, last: int) -> list[Cell]:
        """Some of a span, or of its beginning: the share of a padded row in a step falls with the count."""
        cells = [self._cell(first)]
        while cells[-1].last < last and len(cells) < _MOST_CELLS:
            cells.append(self._cell(cells[-1].last + 1))
        return [*cells[::_EVERY], cells[-1]] if len(cells) > _FEW_CELLS else cells

    def _edge(self, plan: Plan, following: Plan, cells: list[Cell], start: int, end: int) -> int:
        """First token count of the following range: the first cell from which on its plan is the cheaper one."""

        def prefers_following(cell: Cell) -> bool:
            if not all(self._serves(following, count) for count in cell.ends):
                return False
            if not all(self._serves(plan, count) for count in cell.ends):
                return True
            return sum(self._pricer.plan_ps(following, c) - self._pricer.plan_ps(plan, c) for c in cell.ends) < 0

        index = end
        while index > start and prefers_following(cells[index]):
            index -= 1
        low, high = cells[index], cells[index + 1]
        while high.first - low.last > 1:
            middle = self._cell((low.last + high.first) // 2)
            if prefers_following(middle):
                high = middle
            else:
                low = middle
        return high.first


def _quantizes(plan: Plan) -> bool:
    """True if any op of a plan loses information."""
    return any(edge.numerics == "quantized" for edge, _ in plan.counted)
