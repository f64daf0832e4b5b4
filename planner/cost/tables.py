"""Latency curves from measured tables: smoothing, interpolation, marked extrapolation.

Smoothing is the one rule stated in `planner/descriptions/calibration.py`: median of repeats, median of three
neighbours, then the pool-adjacent-violators algorithm on the logarithm of the latency, which gives the closest
non-decreasing curve in the least-squares sense.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median


def smoothed(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points sorted by size: repeats and lone outliers to medians, reversed neighbours to geometric means."""
    by_size = [
        (size, median(latency for _, latency in group))
        for size, group in groupby(sorted(points), key=lambda point: point[0])
    ]
    inner = [median(latency for _, latency in by_size[i - 1 : i + 2]) for i in range(1, len(by_size) - 1)]
    calm = [by_size[0][1], *inner, by_size[-1][1]] if len(by_size) > 1 else [by_size[0][1]]
    pools: list[tuple[float, int]] = []  # (mean of log latency, number of points)
    for latency in calm:
        pools.append((math.log(latency), 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m), (b, n) = pools[-2:]
            pools[-2:] = [((a * m + b * n) / (m + n), m + n)]
    latencies = [math.exp(mean) for mean, count in pools for _ in range(count)]
    return [(size, latency) for (size, _), latency in zip(by_size, latencies, strict=True)]


@dataclass(frozen=True, slots=True)
class Curve:
    """Latency in us as a function of message bytes: log-log linear between the points of a smoothed table."""

    sizes: tuple[float, ...]
    latencies: tuple[float, ...]
    logs: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, sizes: Sequence[float], latencies: Sequence[float]) -> Curve:
        """A curve through the smoothed points."""
        points = smoothed(zip(sizes, latencies, strict=True))
        return cls(
            tuple(size for size, _ in points),
            tuple(latency for _, latency in points),
            tuple((math.log(size), math.log(latency)) for size, latency in points),
        )

    def at(self, size: float) -> tuple[float, bool]:
        """Latency in us, and whether it is extrapolated.

        Below the first point the latency of the first stands (the caller may know better); beyond the last it grows
        with the bandwidth of the last segment.
        """
        sizes, latencies = self.sizes, self.latencies
        if size <= sizes[0]:
            return latencies[0], size < sizes[0]
        if size > sizes[-1]:
            return latencies[-1] + (size - sizes[-1]) * self._last_slope(), True
        i = bisect_left(sizes, size)
        (x0, y0), (x1, y1) = self.logs[i - 1], self.logs[i]
        return math.exp(y0 + (y1 - y0) * (math.log(size) - x0) / (x1 - x0)), False

    def _last_slope(self) -> float:
        """us per byte at the end of the table; over all of it where the last points were pooled to one level."""
        for i in range(len(self.sizes) - 2, -1, -1):
            rise = self.latencies[-1] - self.latencies[i]
            if rise > 0:
                return rise / (self.sizes[-1] - self.sizes[i])
        return self.latencies[-1] / self.sizes[-1]
