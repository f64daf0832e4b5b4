"""Kernels and GEMMs that were measured, looked up by what they do; None where nothing was."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..descriptions.setup import UsedCalibration
from ..executors import Kernels
from ..strategy.words import Provenance
from .estimate import Estimate
from .tables import Curve


class MeasuredKernels:
    """The kernel and GEMM tables of a machine's calibrations. An earlier file wins."""

    def __init__(self, calibrations: Iterable[UsedCalibration]) -> None:
        self._kernels: dict[tuple[tuple[str, ...], int, str], dict[int, tuple[Curve, Provenance, str]]] = {}
        self._gemms: dict[tuple[int, int, str], tuple[Curve, Provenance, str]] = {}
        for used in calibrations:
            c = used.calibration
            provenance: Provenance = c.provenance if used.transferred_because is None else "table (transferred)"
            for k in c.kernels:
                widths = self._kernels.setdefault((k.kernels, k.group_size, k.dtype), {})
                widths.setdefault(k.width, (Curve.of(k.message_bytes, k.latency_us), provenance, c.source))
            for g in c.gemms:
                self._gemms.setdefault(
                    (g.inner, g.columns, g.dtype), (Curve.of(g.rows, g.latency_us), provenance, c.source)
                )

    def passes(
        self, kernels: Kernels, dtype: str, message_bytes: float, width: int, group_size: int
    ) -> Estimate | None:
        """Kernels over a message of rows of this width: measured together, or else every one of them alone."""
        names = tuple(kernel.name for kernel in kernels)
        for parts in ([names], [(name,) for name in names]):
            found = [self._nearest(part, dtype, width, group_size) for part in parts]
            if all(found):
                return _sum([_at(*table, message_bytes) for table in found if table])
        return None

    def _nearest(
        self, names: tuple[str, ...], dtype: str, width: int, group_size: int
    ) -> tuple[Curve, Provenance, str] | None:
        """The table of the width, else of the nearest width: the bytes are what counts."""
        widths = self._kernels.get((names, group_size, dtype)) or self._kernels.get((names, 1, dtype))
        if not widths:
            return None
        return widths[min(widths, key=lambda known: (abs(math.log(known / width)), known))]

    def gemm(self, rows: float, inner: int, columns: int, dtype: str) -> Estimate | None:
        """[rows, inner] x [inner, columns]."""
        table = self._gemms.get((inner, columns, dtype))
        return _at(*table, rows) if table else None


def _at(curve: Curve, provenance: Provenance, source: str, size: float) -> Estimate:
    time, extrapolated = curve.at(size)
    return Estimate(time, 0.0, 0.0, provenance, source + (", extrapolated" if extrapolated else ""))


def _sum(parts: list[Estimate]) -> Estimate:
    return Estimate(sum(part.time_us for part in parts), 0.0, 0.0, parts[0].provenance, parts[0].source)
