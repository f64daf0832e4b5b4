"""Interpolation foretells what was left out, and says how well."""

from __future__ import annotations

from statistics import median

import pytest

from commplan.planner.backtest.held_out import held_out, held_out_errors, percentile_95

from ..cli.commandline import answer, refused, run


def test_a_power_law_is_foretold_exactly():
    sizes = [2.0**k for k in range(8, 20)]
    assert max(held_out_errors(sizes, [0.1 * size**0.7 for size in sizes])) < 1e-9


def test_errors_are_of_interior_points_alone():
    assert held_out_errors([1, 2], [1, 2]) == []
    assert len(held_out_errors([1, 2, 4, 8], [1, 2, 4, 8])) == 2


def test_the_95th_percentile_is_one_of_the_errors():
    assert percentile_95([k / 100 for k in range(1, 101)]) == 0.95
    assert percentile_95([0.3]) == 0.3


def test_the_measured_pair_of_h200_is_foretold_within_5_percent_at_the_median_and_25_at_the_95th():
    found = held_out("h200-2")
    assert all(
        table.median_error <= 0.05 and table.p95_error <= 0.25 for table in found if table.median_error is not None
    )
    assert all(table.noise_from == "repeats" for table in found)


@pytest.mark.parametrize("name", ["a100-sxm", "h100-sxm", "h200-sxm", "b200-sxm", "l40s"])
def test_published_tables_are_foretold_within_5_percent_at_the_median_of_tables(name):
    """Not each of them: points that were published once differ from their neighbours by more than that."""
    assert median(table.median_error for table in held_out(name) if table.median_error is not None) <= 0.05


def test_the_command_lists_every_table():
    tables = answer("backtest", "--tables", "h200-sxm")["tables"]
    assert len(tables) == 27
    assert {"op", "group_size", "median_error", "p95_error", "noise", "noise_from"} <= set(tables[0])
    result = run("backtest", "--tables", "--markdown", "h200-sxm")
    assert result.out.count("| h200-sxm |") == 28  # and the line that sums them up


def test_a_calibration_that_is_not_there_is_refused():
    assert refused("backtest", "--tables", "nothing")["value"] == "nothing"
