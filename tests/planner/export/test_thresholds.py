"""A limit moves where measurements say that it costs time, and not for kernels that are level."""

from __future__ import annotations

import pytest

from commplan.planner.export.thresholds import MIB, Point, size, verdict


def points(*ratios: float) -> list[Point]:
    """1, 2, 4, 8, ... MiB, by what the rival takes for each us of the kernel."""
    return [Point(MIB << k, 10.0, 10.0 * ratio, "nccl") for k, ratio in enumerate(ratios)]


@pytest.mark.parametrize(
    ("ratios", "stands", "limit"),
    [
        ((2, 2, 2, 1, 1), 8, 8),  # level at the end: it stands
        ((2, 2, 2, 1.02, 0.98), 16, 16),
        ((2, 2, 0.5, 0.5), 8, 2),  # behind from 4 MiB on
        ((2, 2, 2, 2, 0.5), 2, 8),  # ahead beyond its limit
        ((2, 2, 2, 1, 2), 2, 16),  # level on the way is no reason to stop
        ((2, 2, 0.5, 2), 2, 2),  # behind on the way is
        ((2, 2, 2), None, 4),  # no entry yet
        ((2, 1, 1), None, 1),
        ((0.5, 0.5, 0.5), 4, 0),
        ((0.5, 0.5), None, 0),
        ((2, 0.5), 64, 64),  # nothing was measured where the limit lies
    ],
)
def test_the_limit(ratios: tuple[float, ...], stands: int | None, limit: int) -> None:
    found = verdict(points(*ratios), None if stands is None else stands * MIB)
    assert found.limit == limit * MIB
    assert found.changes == (limit != (stands or 0))


def test_sizes_below_a_limit_at_which_the_kernel_is_behind_are_named() -> None:
    found = verdict(points(0.5, 0.5, 2, 2), 8 * MIB)
    assert (found.limit, found.holes) == (8 * MIB, (MIB, 2 * MIB))


def test_a_reason_names_times_and_who_is_quicker() -> None:
    assert verdict(points(2, 0.5), 2 * MIB).reason == "10.0 us at 2 MiB, where nccl takes 5.0"
    assert "no longer at 4 MiB" in verdict(points(2, 2, 0.5), MIB).reason
    assert "measured up to 2 MiB alone" in verdict(points(2, 0.5), 64 * MIB).reason


@pytest.mark.parametrize(("number", "text"), [(262144, "256 KiB"), (1536 << 10, "1.5 MiB"), (512, "512 bytes")])
def test_a_size_has_a_unit(number: int, text: str) -> None:
    assert size(number) == text
