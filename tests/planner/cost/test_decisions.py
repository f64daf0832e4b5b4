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
    assert len(rows) > 850

    def right(decide) -> float:
        score = bench.Score.of(row.regret(decide(row)) for row in rows)
        return score.right / score.rows

    known, borrowed = (right(lambda row, given=given: deciding.choice(row, given)) for given in (True, False))
    assert known >= 0.98
    assert borrowed >= 0.85
    assert borrowed > max(right(rule) for rule in bench.RULES.values())


@pytest.mark.slow
def test_with_tables_no_rule_is_right_more_often_on_any_system_or_kind_of_row_as_docs_accuracy_has_it(bench):
    rows, deciding = list(bench.rows()), bench.Decisions()
    chosen = {"commplan, all tables": [deciding.choice(row, True) for row in rows]}
    mine = [line.split(" | ")[:3] for line in bench.table(rows, chosen, True).splitlines()[2:]]
    told = (Path(__file__).parents[3] / "docs" / "accuracy.md").read_text()
    for system, count, cell in mine:
        assert f"{system} | {count} | {cell.rstrip(' |')} |" in told
    parts = {system: [row for row in rows if row.system == system] for system in {row.system for row in rows}}
    parts |= {kind: [row for row in rows if of(row)] for kind, of in bench.KINDS_OF_ROWS.items()}
    assert {"MI300X", "with the norm", "quantised allowed"} <= set(parts)
    for name, here in parts.items():
        assert here, name
        mine = bench.Score.of(row.regret(deciding.choice(row, True)) for row in here)
        for rule, decide in bench.RULES.items():
            theirs = bench.Score.of(row.regret(decide(row)) for row in here)
            assert mine.right >= theirs.right, (name, rule)


def test_rows_with_a_norm_hold_it_in_every_time_and_rows_of_a_format_hold_no_other(bench):
    rows = list(bench.rows())
    normed = [row for row in rows if row.width is not None and row.wire is None]
    fused = {row.message_bytes: row.times for row in normed if "flashinfer_fused" in row.times and row.width == 5120}
    assert fused[10240]["nccl"] > 9  # alone it takes less than 7 us
    assert all(row.rivals[label].is_exact for row in normed for label in row.times)
    for row in rows:
        if row.wire not in (None, "any"):
            assert {r.wire for r in row.rivals.values() if not r.is_exact} == {row.wire}


def test_a_row_that_cannot_be_decided_is_wrong_and_has_no_regret(bench):
    score = bench.Score.of([0.0, 0.019, 0.5, None])
    assert (score.right, score.rows, score.regret) == (2, 4, pytest.approx(0.173))
