"""configs/accuracy/summary.yaml is what the back-tests find today, since every plan quotes it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from commplan.planner.backtest.accuracy_file import Summary, accuracy_path, shipped_summary, summary_text
from commplan.planner.backtest.case import read_case, shipped_cases
from commplan.planner.backtest.run import run_case
from commplan.planner.backtest.summary import fresh_summary
from commplan.planner.descriptions.base import build
from commplan.planner.strategy.words import PROVENANCES
from commplan.planner.strategy.yaml_file import parse_yaml

from ..cli.commandline import refused


@pytest.mark.slow
def test_the_file_is_what_a_fresh_run_finds() -> None:
    fresh = summary_text(fresh_summary()) + "\n"
    assert accuracy_path().read_text(encoding="utf-8") == fresh, "run: python docs/fill_readme.py"


def test_every_case_with_a_prediction_is_in_it_with_its_error() -> None:
    known = {record.id: record for record in shipped_summary().cases}
    outcomes = [run_case(read_case(path), path) for path in shipped_cases()]
    predicted = {o.case.id: o for o in outcomes if o.predicted is not None}
    assert set(known) == set(predicted)
    for name, record in known.items():
        assert record.error == pytest.approx(predicted[name].error, abs=1e-4)
        assert record.verdict == predicted[name].verdict


def test_a_summary_reads_back_as_it_was_written() -> None:
    summary = shipped_summary()
    assert build(Summary, parse_yaml(summary_text(summary) + "\n"), "here") == summary


def test_no_provenance_is_trusted_more_than_a_better_one() -> None:
    summary = shipped_summary()
    for vendor in ("nvidia", "ascend", "cpu", "somebody"):
        for kind in ("communication", "device"):
            spreads = [summary.spread(vendor, kind, provenance) for provenance in PROVENANCES]  # type: ignore[arg-type]
            assert spreads == sorted(spreads)
            assert all(spread > 0 for spread in spreads)


def test_a_spread_covers_four_fifths_of_the_absolute_back_tests_that_it_is_of() -> None:
    """Tables count beside them, so it may be a few less or more; here it is about the class without tables."""
    summary = shipped_summary()
    seen = [
        abs(math.log1p(record.error))
        for record in summary.cases
        if (record.unit, record.provenance, record.vendor) == ("us", "formula", "nvidia")
        and record.quantity == "collective_time"
    ]
    spread = summary.spread("nvidia", "communication", "formula")
    assert sum(error <= spread + 1e-4 for error in seen) >= 0.8 * len(seen)


def test_what_was_off_over_pcie_moves_gains_over_pcie_alone() -> None:
    """Hosts of one device differ there by more than a table of one host is off."""
    summary = shipped_summary()
    over = {link: summary.spread("nvidia", "communication", "table", link) for link in ("switch", "full_mesh", "pcie")}
    assert over["pcie"] > 2 * over["switch"]
    assert over["full_mesh"] == over["switch"]
    assert summary.spread("nvidia", "device", "assumed", "pcie") == summary.spread("nvidia", "device", "assumed")


def test_a_summary_of_some_cases_is_refused() -> None:
    assert refused("backtest", "--summary", "sglang-10568-communication")["field"] == "--summary"


def test_the_first_page_of_the_accuracy_note_counts_what_the_back_tests_found() -> None:
    note = (Path(__file__).parents[3] / "docs" / "accuracy.md").read_text(encoding="utf-8")
    page = note.split("## How it was found out")[0]
    cases = {case.id: case for case in map(read_case, shipped_cases())}
    ratios = [record for record in shipped_summary().cases if record.unit == "ratio"]
    steps = [record for record in ratios if record.quantity in ("throughput", "ttft", "itl")]
    published = {record.id: cases[record.id].published for record in ratios}
    right = [r for r in ratios if (published[r.id] * (1 + r.error) - 1) * (published[r.id] - 1) > 0]
    shares = [record for record in shipped_summary().cases if record.unit == "share"]
    assert f"{len(right)} of {len(ratios)} published ratios, {len(steps)} of them of whole steps" in page
    assert f"{sum(r.verdict == 'inside' for r in steps)} of {len(steps)} published gains of whole steps" in page
    assert f"in {sum(r.verdict == 'inside' for r in shares)} of {len(shares)} cases" in page
    assert sum(line[:1].isdigit() for line in page.splitlines()) == 10
