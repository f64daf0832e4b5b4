"""Runs on a rank: sums around the library, measured as points; and which of their methods ran."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from commplan.runtime.calibration.measure import measure_rank


def measured_sums(points: list[list[Any]]) -> tuple[dict[str, list[float]], set[str]]:
    """Samples by point, and the methods by which sums were called."""
    kind, seen = import_module("commplan.runtime.collectives.wire_sums").WireSum, set[str]()
    methods = {name: getattr(kind, name) for name in ("sum", "sum_norm")}

    def noting(name: str) -> Any:
        def call(self: Any, *args: Any, **named: Any) -> Any:
            seen.add(name)
            return methods[name](self, *args, **named)

        return call

    for name in methods:
        setattr(kind, name, noting(name))
    try:
        found: dict[str, list[float]] = measure_rank(points, "gloo", 1.0, {}, None, None)["samples"]
    finally:
        for name, method in methods.items():
            setattr(kind, name, method)
    return found, seen
