"""What a report is about: a setup, the plan of every mode and range, and how anything is priced."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..answers.breakdown import breakdown
from ..descriptions.setup import Setup
from ..search.graph import Plan
from ..strategy.errors import NoLegalPlanError
from ..strategy.file.document import FasterRival, joined
from ..what_if.crossovers import Crossover, crossovers
from ..what_if.evaluation import PLAN, Evaluation, Evaluator, Priced

_COUNTS = 56  # token counts of a curve, spread evenly over the logarithm


@dataclass(frozen=True)
class Range:
    """The plan over [first, last] tokens."""

    first: int
    last: int
    plan: Plan


@dataclass
class Study:
    """A deployment with its plan.

    ranges  by mode: what the plan does over its token counts
    load    a setup of the same deployment with further `field=value` overrides
    """

    setup: Setup
    ranges: dict[str, list[Range]]
    load: Callable[..., Setup]
    evaluator: Evaluator
    notes: list[str] = field(default_factory=list)

    @classmethod
    def planned(cls, setup: Setup, load: Callable[..., Setup]) -> Study:
        """The study of a new plan; raises NoLegalPlanError."""
        evaluator = Evaluator(setup)
        ranges = {
            mode: [Range(r.first, r.last, r.plan) for r in evaluator.planner(mode).ranges()]
            for mode in setup.deployment.modes
        }
        return cls(setup, ranges, load, evaluator)

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that are planned."""
        return tuple(self.ranges)

    def range_of(self, mode: str, tokens: int) -> Range:
        """The range that holds a token count."""
        ranges = self.ranges[mode]
        return ranges[max(0, bisect_right([r.first for r in ranges], tokens) - 1)]

    def at(self, mode: str, tokens: int) -> Evaluation:
        """Every strategy, and the plan of the range (not the optimum of this very count)."""
        known = self._known.get((mode, tokens))
        if known is None:
            found = self.evaluator.at(mode, tokens)
            plan = self.range_of(mode, tokens).plan
            priced = Priced(PLAN, plan, breakdown(self.evaluator.planner(mode), plan, tokens))
            known = self._known[mode, tokens] = replace(found, plans={**found.plans, PLAN: priced})
        return known

    @cached_property
    def _known(self) -> dict[tuple[str, int], Evaluation]:
        return {}

    def counts(self, mode: str) -> list[int]:
        """Token counts of a curve: the ends of the ranges, and counts evenly spread over the logarithm."""
        ranges = self.ranges[mode]
        first, last = ranges[0].first, ranges[-1].last
        spread = {round(first * (last / first) ** (k / (_COUNTS - 1))) for k in range(_COUNTS)}
        tp = self.setup.parallelism.tp
        aligned = {count if count < 2 * tp else round(count / tp) * tp for count in spread}  # no saw teeth of padding
        inside = {count for count in aligned if first <= count <= last}
        return sorted(inside | {end for r in ranges for end in (r.first, r.last)})

    def evaluations(self, mode: str) -> list[tuple[int, Evaluation]]:
        """The curve of a mode, but for counts at which nothing is legal."""
        found = []
        for count in self.counts(mode):
            try:
                found.append((count, self.at(mode, count)))
            except NoLegalPlanError:
                continue
        return found

    @cached_property
    def faster_rivals(self) -> tuple[tuple[str, FasterRival], ...]:
        """Mode and rival wherever the stock server is faster than the plan, its flags first."""
        return joined(
            (mode, rival)
            for mode, ranges in self.ranges.items()
            for r in ranges
            for rival in self.evaluator.server(mode).faster_rivals(r.plan, r.first, r.last)
        )

    def crossovers(self, mode: str) -> list[Crossover]:
        """Where the fastest uniform strategy changes."""
        return crossovers(self.evaluator, mode, [count for count, _ in self.evaluations(mode)])
