"""From the points of imported measurements to tables."""

from __future__ import annotations

from statistics import median
from typing import Any

from ..cost.tables import smoothed

Key = tuple[str, str, str, int]  # op, impl, dtype, group size


def median_table(key: Key, points: dict[int, list[float]]) -> dict[str, Any]:
    """The fields of a table: repeats of a size give their median, and the spread is that of the repeats."""
    op, impl, dtype, group_size = key
    ordered = sorted(points.items())
    repeated = [(max(times) - min(times)) / 2 / median(times) for _, times in ordered if len(times) > 1]
    return {
        "op": op,
        "impl": impl,
        "dtype": dtype,
        "group_size": group_size,
        "message_bytes": tuple(size for size, _ in ordered),
        "latency_us": tuple(round(median(times), 3) for _, times in ordered),
        "relative_spread": round(median(repeated), 4) if repeated else None,
    }


def moved(sizes: tuple[int, ...], latencies: tuple[float, ...]) -> int:
    """Points that the smoothing rule of a calibration moves by more than a thousandth."""
    after = smoothed(zip(sizes, latencies, strict=True))
    return sum(abs(new / old - 1) > 1e-3 for (_, new), old in zip(after, latencies, strict=True))
