"""Measured tables become curves: never falling, free of lone outliers, true to their points, honest beyond them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commplan.planner.cost.collectives import CollectiveCosts
from commplan.planner.cost.tables import Curve, smoothed

from ..random_machines import examples
from ..tiny_setups import Machine, dense_model, table

latencies = st.floats(0.5, 1e5)
noisy = st.lists(st.tuples(st.integers(1, 1 << 30), latencies), min_size=2, max_size=20)


def rising(count: int) -> list[tuple[float, float]]:
    return [(256.0 * 4**k, 5.0 + 2.0**k) for k in range(count)]


@given(points=noisy)
@examples(100)
def test_a_larger_message_never_takes_less_time(points):
    curve = smoothed(points)
    assert [size for size, _ in curve] == sorted({size for size, _ in points})
    assert all(a <= b * (1 + 1e-12) for (_, a), (_, b) in pairwise(curve))


@given(points=noisy)
@examples(100)
def test_smoothing_twice_changes_no_more(points):
    once = smoothed(points)
    for (size, latency), (again, after) in zip(once, smoothed(once), strict=True):
        assert size == again
        assert after == pytest.approx(latency, rel=1e-9)


@given(points=noisy)
@examples(50)
def test_a_curve_stays_within_what_was_measured(points):
    measured = [latency for _, latency in points]
    for _, latency in smoothed(points):
        assert min(measured) * (1 - 1e-9) <= latency <= max(measured) * (1 + 1e-9)


def test_a_rising_table_is_left_as_it_is():
    for (_, before), (_, after) in zip(rising(8), smoothed(rising(8)), strict=True):
        assert after == pytest.approx(before, rel=1e-12)


@pytest.mark.parametrize("factor", [0.01, 50])
@pytest.mark.parametrize("index", range(1, 7))
def test_a_lone_outlier_is_removed(index, factor):
    points = rising(8)
    points[index] = (points[index][0], points[index][1] * factor)
    curve = smoothed(points)
    assert points[index - 1][1] * (1 - 1e-9) <= curve[index][1] <= points[index + 1][1] * (1 + 1e-9)
    for other in set(range(8)) - {index - 1, index, index + 1}:
        assert curve[other][1] == pytest.approx(points[other][1])


def test_repeats_of_a_size_count_by_their_median():
    assert smoothed([(1024, 9.0), (1024, 7.0), (1024, 500.0), (4096, 20.0)]) == [
        (1024, pytest.approx(9.0)),
        (4096, pytest.approx(20.0)),
    ]


def test_reversed_neighbours_meet_at_their_geometric_mean():
    assert smoothed([(1, 20.0), (2, 5.0)]) == [(1, pytest.approx(10.0)), (2, pytest.approx(10.0))]


@given(points=noisy)
@examples(50)
def test_a_curve_hits_its_knots(points):
    knots = smoothed(points)
    if len(knots) > 1:
        curve = Curve.of([s for s, _ in knots], [t for _, t in knots])
        for size, latency in knots:
            assert curve.at(size) == (pytest.approx(latency, rel=1e-9), False)


def test_between_knots_time_follows_a_power_of_the_size():
    curve = Curve.of([1000, 100_000], [10, 40])
    time, extrapolated = curve.at(10_000)
    assert time == pytest.approx(math.sqrt(10 * 40))
    assert not extrapolated


def test_beyond_the_last_knot_time_grows_with_the_last_bandwidth_and_is_marked():
    curve = Curve.of([1000, 2000, 4000], [10, 15, 35])
    assert curve.at(6000) == (pytest.approx(35 + 2000 * 20 / 2000), True)
    assert curve.at(4000) == (pytest.approx(35), False)


def test_beyond_a_level_end_time_grows_with_the_bandwidth_of_the_rise_before_it():
    curve = Curve.of([1000, 2000, 4000, 8000], [10, 20, 20, 20])
    assert curve.at(16_000) == (pytest.approx(20 + 8000 * 10 / 7000), True)


def test_a_time_outside_a_table_is_marked_in_its_source(folder):
    measured = table("all_reduce", 2, {1024: 10.0, 4096: 12.0, 65536: 30.0})
    costs = CollectiveCosts(folder.setup(dense_model(), Machine(tables=(measured,)), tp=2))
    for size, marked in ((512, True), (1024, False), (30_000, False), (65536, False), (70_000, True)):
        estimate = costs.collective("all_reduce", "nccl", "bf16", "tp", size)
        assert estimate.provenance == "measured"
        assert estimate.source.endswith(", extrapolated") == marked, size


def test_below_the_first_knot_the_formulas_slope_carries_on(folder):
    first = 1 << 20
    measured = table("all_gather", 2, {first: 60.0, 4 * first: 200.0})
    costs = CollectiveCosts(folder.setup(dense_model(), Machine(tables=(measured,)), tp=2))
    without = CollectiveCosts(folder.setup(dense_model(), Machine(), tp=2))

    def ratio(prices: CollectiveCosts) -> float:
        small, large = (prices.collective("all_gather", "nccl", "bf16", "tp", n).total_us for n in (first / 8, first))
        return small / large

    assert ratio(costs) == pytest.approx(ratio(without))


def test_types_of_equal_width_stand_in_for_each_other(folder):
    measured = table("all_gather", 2, {1024: 10.0, 65536: 30.0})
    costs = CollectiveCosts(folder.setup(dense_model(), Machine(tables=(measured,)), tp=2))
    times = {costs.collective("all_gather", "nccl", dtype, "tp", 4096).total_us for dtype in ("bf16", "fp16", "int8")}
    assert len(times) == 1
