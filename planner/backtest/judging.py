"""Prediction against measurement: what is measured on the live machine, and what comes of it.

For each token count the plan stands beside every uniform strategy, by the cheapest impls that each may have, and beside
all-reduce by the library alone where that is another plan: what the machine would run without commplan. Each distinct
boundary of each is predicted and measured; a whole forward is the boundaries of all layers, and the compute that no
choice changes.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

from ..answers.from_file import plan_of
from ..answers.to_file import range_plan, with_stamps
from ..descriptions.setup import Setup
from ..search.graph import Edge, Plan
from ..search.planning import ModePlanner
from ..search.ranges import PlannedRange
from ..strategies import PLAIN, strategies
from ..strategy.file import StrategyFile
from ..strategy.op_record import Rows

PLAN, LIBRARY = "plan", "all_reduce by the library"
Key = tuple[str, str, str, str]
_RESAMPLES = 1000


@dataclass(frozen=True)
class Contest:
    """The plans that are measured against each other at one token count."""

    mode: str
    tokens: int
    plans: dict[str, Plan]
    files: dict[str, StrategyFile]


class Boundary(NamedTuple):
    """A distinct boundary of a plan: predicted and measured, in us; `times` a forward."""

    mode: str
    tokens: int
    plan: str
    boundary: str
    op: str
    times: int
    predicted_us: float
    measured_us: float

    @property
    def error(self) -> float:
        """Of the prediction, relative to what was measured."""
        return self.predicted_us / self.measured_us - 1


class Outcome(NamedTuple):
    """How the plan did at one token count.

    `regret` is its step time over that of the best alternative measured (1 and less: it was the best), median over the
    rounds; `low` and `high` enclose it with 95 % confidence. `alternative` is that best one.
    """

    mode: str
    tokens: int
    predicted_us: float
    measured_us: float
    compute_us: float
    alternative: str
    regret: float
    low: float
    high: float


def contests(setup: Setup, chosen: StrategyFile, mode: str, counts: list[int], file: str) -> list[Contest]:
    """The plan of a file at some token counts, with the uniform strategies that are legal there."""
    planner = ModePlanner(setup, mode)
    found = []
    for tokens in counts:
        plans: dict[str, Plan] = {PLAN: plan_of(planner, chosen, tokens, file)[0]}
        rivals = {name: planner.uniform(name, tokens) for name in strategies()}
        rivals[LIBRARY] = planner.uniform(PLAIN, tokens, own_kernels=False)
        for name, uniform in rivals.items():
            if uniform.plan is not None and not _same_ops(uniform.plan, plans.values()):
                plans[name] = uniform.plan
        files = {
            name: with_stamps(setup, {mode: (range_plan(planner, PlannedRange(tokens, tokens, plan, 0.0)),)})
            for name, plan in plans.items()
        }
        found.append(Contest(mode, tokens, plans, files))
    return found


def _same_ops(plan: Plan, others: Any) -> bool:
    ops = [edge.op for edge in plan.edges]
    return any(ops == [edge.op for edge in other.edges] for other in others)


def key_of(edge: Edge) -> Key:
    """As the runtime names the boundary."""
    return (edge.boundary, str(edge.op), str(edge.before), str(edge.after))


def measured_edges(plan: Plan) -> list[Edge]:
    """The boundaries that are measured: all but head_in, which works on the few rows that need logits."""
    return [edge for edge in plan.edges if edge.boundary != "head_in" and edge.op.kind.rows is not Rows.TAKEN]


def predicted_us(planner: ModePlanner, edge: Edge, tokens: int) -> float:
    """Price of a boundary as it is measured: without the norms of the latents, which no choice changes."""
    terms = [t for t in edge.terms if not (edge.boundary == "attn_in" and t.category == "norm")]
    return sum(planner.costs.estimate(term, tokens).total_us for term in terms)


def judge(setup: Setup, contest: Contest, samples: dict[str, dict[Key, list[float]]]) -> tuple[list[Boundary], Outcome]:
    """Boundaries and outcome of a contest, from the samples of its distinct boundaries by plan and round."""
    planner = ModePlanner(setup, contest.mode)
    tokens, boundaries, rounds = contest.tokens, [], {}
    for name, plan in contest.plans.items():
        edges = measured_edges(plan)
        counts: dict[Key, list[Edge]] = {}
        for edge in edges:
            counts.setdefault(key_of(edge), []).append(edge)
        by_round = [0.0] * len(next(iter(samples[name].values())))
        for key, same in counts.items():
            found = samples[name][key]
            by_round = [total + len(same) * time for total, time in zip(by_round, found, strict=True)]
            predicted = predicted_us(planner, same[0], tokens)
            if predicted > 0:
                place = (contest.mode, tokens, name, same[0].boundary, str(same[0].op), len(same))
                boundaries.append(Boundary(*place, predicted, median(found)))
        rounds[name] = by_round
    compute = planner.fixed_ps(tokens) / 1e6
    predicted = sum(predicted_us(planner, edge, tokens) for edge in measured_edges(contest.plans[PLAN]))
    others = {name: times for name, times in rounds.items() if name != PLAN}
    if not others:
        return boundaries, Outcome(contest.mode, tokens, predicted, median(rounds[PLAN]), compute, PLAN, 1.0, 1.0, 1.0)
    best = min(others, key=lambda name: median(others[name]))
    ratios = [(a + compute) / (b + compute) for a, b in zip(rounds[PLAN], others[best], strict=True)]
    low, high = _interval(ratios)
    outcome = Outcome(contest.mode, tokens, predicted, median(rounds[PLAN]), compute, best, median(ratios), low, high)
    return boundaries, outcome


def _interval(values: list[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the median; the draws are the same every time."""
    draw = random.Random(0)
    medians = sorted(median(draw.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    return medians[int(0.025 * _RESAMPLES)], medians[int(0.975 * _RESAMPLES)]


def errors_of(boundaries: list[Boundary]) -> tuple[float, float]:
    """(median, 95th percentile) of the absolute relative error over distinct boundaries."""
    if not boundaries:
        return math.nan, math.nan
    errors = sorted(abs(b.error) for b in boundaries)
    return median(errors), errors[min(len(errors) - 1, math.ceil(0.95 * len(errors)) - 1)]
