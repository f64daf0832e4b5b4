"""Runs on a rank: points of sums through host memory, measured over a carrier that is really made."""

from __future__ import annotations

from typing import Any

from commplan.runtime.calibration.measure import measure_rank


def measured_points(points: list[list[Any]]) -> dict[str, list[float]]:
    """Samples by point."""
    found: dict[str, list[float]] = measure_rank(points, "gloo", 1.0, {}, None, None)["samples"]
    return found
