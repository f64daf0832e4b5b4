"""What is known so far, kept beside the output, and the sensitivity file that it becomes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from commplan.planner.strategy.file import Op, parse_json
from commplan.planner.strategy.files import forget, goes_on_with, read_text, write_text_atomically
from commplan.planner.strategy.yaml_file import flow_text

from ..errors import RefusedError
from .measure import BOUNDARIES, Effect, Known, PlaceResult
from .wires import format_of

_LEAST_WEIGHT = 1e-3  # of places where nothing was lost: a weight is positive


class Record:
    """Results by place, written after each; `about` is what they are of, and must be the same to go on with them."""

    def __init__(self, output: str, about: dict[str, Any], num_layers: int) -> None:
        self.file = Path(f"{output}.partial")
        self.about, self.num_layers = about, num_layers
        self.exact: float | None = None
        self.known: Known = {}
        if self.file.is_file():
            self._resume()

    def _resume(self) -> None:
        held = parse_json(read_text(self.file))
        if not isinstance(held, dict) or held.get("about") != self.about:
            raise RefusedError(
                "holds results of another model, text, or choice of formats; delete it, or name another output",
                file=str(self.file),
            )
        goes_on_with(self.file)
        self.exact = held["exact"]
        for name, (outliers, worst, effects) in held["places"].items():
            layer, _, boundary = name.partition(".")
            self.known[int(layer), boundary] = PlaceResult(outliers, worst, tuple(Effect(*each) for each in effects))

    def add(self, place: tuple[int, str], result: PlaceResult) -> None:
        """Keep a result, on the disk too."""
        self.known[place] = result
        self.put_down()

    def put_down(self) -> None:
        """The file that a later call goes on from, whole or not at all."""
        places = {
            f"{layer}.{boundary}": [r.outliers, r.worst_outliers, [[e.error, e.loss, e.odd] for e in r.effects]]
            for (layer, boundary), r in self.known.items()
        }
        write_text_atomically(
            self.file, json.dumps({"about": self.about, "exact": self.exact, "places": places}) + "\n"
        )

    def save(self, output: str, ops: tuple[Op, ...], measured: dict[str, Any]) -> None:
        """Write the sensitivity file; what was kept for later goes."""
        write_text_atomically(output, sensitivity_text(self.known, self.num_layers, ops, measured))
        forget(self.file)


def sensitivity_text(known: Known, num_layers: int, ops: tuple[Op, ...], measured: dict[str, Any]) -> str:
    """The text of a sensitivity file."""

    def by_boundary(of: Callable[[PlaceResult], float]) -> dict[str, list[float]]:
        return {b: [_short(of(known[layer, b])) for layer in range(num_layers)] for b in BOUNDARIES}

    weights = _weights(known, num_layers)
    lines = [
        "schema: commplan/sensitivity/v1",
        "# w_b of an error budget: the root of loss by squared error, of the first format",
    ]
    lines += [f"{boundary}: {flow_text(values)}" for boundary, values in weights.items()]
    lines += [
        f"measured: {flow_text(measured)}",
        "# the largest value of a row that travels over its RMS: mean over rows, and the worst row",
    ]
    lines += [f"outliers: {flow_text(by_boundary(lambda r: r.outliers))}"]
    lines += [f"worst_outliers: {flow_text(by_boundary(lambda r: r.worst_outliers))}"]
    lines += [
        "# relative error of a sum; what the mean loss of a token rises by, in nats; the part that is of this text",
        "formats:",
    ]
    for index, op in enumerate(ops):
        wire, group, algorithm = format_of(op)
        lines += [f"- wire: {wire}", f"  group: {group}", f"  algorithm: {algorithm}"]
        for name in ("error", "loss", "odd"):
            lines.append(f"  {name}: {flow_text(by_boundary(lambda r, i=index, n=name: getattr(r.effects[i], n)))}")  # type: ignore[misc]
    return "\n".join(lines) + "\n"


def _weights(known: Known, num_layers: int) -> dict[str, list[float]]:
    """Of errors: what a place does to the loss for its squared error, in the first format; 1 in the mean square."""
    found = {place: max(0.0, r.effects[0].loss) / max(r.effects[0].error, 1e-12) ** 2 for place, r in known.items()}
    mean = sum(found.values()) / len(found) or 1.0
    return {
        b: [_short(max(_LEAST_WEIGHT, math.sqrt(found[layer, b] / mean))) for layer in range(num_layers)]
        for b in BOUNDARIES
    }


def _short(value: float) -> float:
    return float(f"{value:.5g}")
