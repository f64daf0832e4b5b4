"""How well a table foretells what lies between its points: every interior point held out in turn.

Noise is what no interpolation can be better than: the spread between repeats where the source gives it; else how far
the table lies from the one of another type over the same bytes, which measures the same thing a second time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ..cost.tables import Curve
from ..descriptions.base import build
from ..descriptions.calibration import Calibration, Table
from ..descriptions.loader import find
from ..strategy.yaml_file import read_mapping


@dataclass(frozen=True)
class HeldOut:
    """Accuracy of one table; None where it has no interior point or nothing is known of its noise.

    errors are |predicted / measured - 1|; `noise` is the half-spread of repeats, or the 95th percentile of twins.
    """

    calibration: str
    op: str
    algorithm: str | None
    impl: str
    dtype: str
    group_size: int
    attn_dp: int | None
    width: int | None
    points: int
    median_error: float | None
    p95_error: float | None
    noise: float | None
    noise_from: str


def held_out(name: str) -> list[HeldOut]:
    """Every table of a calibration (preset or path)."""
    path = find(name, "calibrations", None, "calibration")
    calibration = build(Calibration, read_mapping(path), str(path))
    return [_table(calibration, table) for table in calibration.tables]


def _table(calibration: Calibration, table: Table) -> HeldOut:
    errors = held_out_errors(table.message_bytes, table.latency_us)
    noise, noise_from = _noise(calibration, table)
    pieces = f"{table.pieces} pieces" if table.pieces else ""
    return HeldOut(
        calibration.name,
        table.op,
        " ".join(part for part in (table.wire, table.scale_group, table.algorithm, pieces) if part) or None,
        table.impl,
        table.dtype,
        table.group_size,
        table.attn_dp,
        table.width,
        len(table.message_bytes),
        median(errors) if errors else None,
        percentile_95(errors) if errors else None,
        noise,
        noise_from,
    )


def held_out_errors(sizes: Sequence[float], latencies: Sequence[float]) -> list[float]:
    """|predicted / measured - 1| of every point but the ends, each predicted by a curve through all others."""
    points = sorted(zip(sizes, latencies, strict=True))
    errors = []
    for index in range(1, len(points) - 1):
        size, measured = points[index]
        others = [*points[:index], *points[index + 1 :]]
        predicted, extrapolated = Curve.of([s for s, _ in others], [t for _, t in others]).at(size)
        if not extrapolated:
            errors.append(abs(predicted / measured - 1))
    return errors


def percentile_95(errors: Sequence[float]) -> float:
    """The smallest error that at least 95 % of them do not exceed."""
    return sorted(errors)[math.ceil(0.95 * len(errors)) - 1]


def _noise(calibration: Calibration, table: Table) -> tuple[float | None, str]:
    if table.relative_spread is not None:
        return table.relative_spread, "repeats"
    measured = dict(zip(table.message_bytes, table.latency_us, strict=True))
    differences = [
        abs(latency / measured[size] - 1)
        for twin in calibration.tables
        if twin is not table and _but_for_the_type(twin) == _but_for_the_type(table)
        for size, latency in zip(twin.message_bytes, twin.latency_us, strict=True)
        if size in measured
    ]
    return (percentile_95(differences), "other type") if differences else (None, "")


def _but_for_the_type(table: Table) -> tuple[object, ...]:
    format_ = (table.algorithm, table.wire, table.scale_group, table.pieces)
    return (table.op, *format_, table.impl, table.group_size, table.attn_dp, table.width)
