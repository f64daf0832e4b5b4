"""The benchmark of decisions: nobody's rule is right more often than prices, with tables of the system or without."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks" / "planner"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import decisions

        yield decisions
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.slow
def test_prices_are_right_more_often_than_every_rule_with_tables_of_the_system_and_without(bench):
    rows, deciding = list(bench.rows()), bench.Decisions()
    assert len(rows) > 600

    def right(decide) -> float:
        score = bench.Score.of(row.regret(decide(row)) for row in rows)
        return score.right / score.rows

    known, borrowed = (right(lambda row, given=given: deciding.choice(row, given)) for given in (True, False))
    assert known >= 0.98
    assert borrowed >= 0.85
    assert borrowed > max(right(rule) for rule in bench.RULES.values())


def test_a_row_that_cannot_be_decided_is_wrong_and_has_no_regret(bench):
    score = bench.Score.of([0.0, 0.019, 0.5, None])
    assert (score.right, score.rows, score.regret) == (2, 4, pytest.approx(0.173))
