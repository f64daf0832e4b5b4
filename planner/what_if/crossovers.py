"""Token counts from which another uniform strategy is the fastest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ..strategy.errors import NoLegalPlanError
from .evaluation import Evaluator

_TOGETHER = 1.25


@dataclass(frozen=True)
class Crossover:
    """From `tokens` on, `after` is the fastest uniform strategy instead of `before`."""

    mode: str
    tokens: int
    before: str
    after: str


def crossovers(evaluator: Evaluator, mode: str, tokens: Sequence[int]) -> list[Crossover]:
    """Changes of the fastest uniform strategy between neighbouring token counts, each bisected to a count.

    Where counts that tp divides and their neighbours differ, the winner changes to and fro for a while: changes that
    lie within a quarter of each other count as one, from the first one's winner to the last one's.
    """
    found: list[Crossover] = []
    for low, high in pairwise(sorted(set(tokens))):
        before, after = _fastest(evaluator, mode, low), _fastest(evaluator, mode, high)
        if before is None or after is None or before == after:
            continue
        found += _between(evaluator, mode, low, high)
    return _settled(found)


def _settled(found: list[Crossover]) -> list[Crossover]:
    groups: list[list[Crossover]] = []
    for change in found:
        if groups and change.tokens <= _TOGETHER * groups[-1][-1].tokens:
            groups[-1].append(change)
        else:
            groups.append([change])
    net = (replace(group[-1], before=group[0].before) for group in groups)
    return [change for change in net if change.before != change.after]


def _between(evaluator: Evaluator, mode: str, low: int, high: int) -> list[Crossover]:
    before, after = _fastest(evaluator, mode, low), _fastest(evaluator, mode, high)
    if before is None or after is None or before == after:
        return []
    if high - low == 1:
        return [Crossover(mode, high, before, after)]
    middle = (low + high) // 2
    between = _fastest(evaluator, mode, middle)
    if between in (before, None):
        return _between(evaluator, mode, middle, high)
    if between == after:
        return _between(evaluator, mode, low, middle)
    return _between(evaluator, mode, low, middle) + _between(evaluator, mode, middle, high)  # a third one in between


def _fastest(evaluator: Evaluator, mode: str, tokens: int) -> str | None:
    try:
        return evaluator.at(mode, tokens).fastest_uniform
    except NoLegalPlanError:
        return None
