"""Draws a chart of each pair of CSV files beside it: `python docs/measured/chart.py`. No library needed."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
SIDE, GAP, LEFT, TOP = 380, 90, 62, 58
INK, GRID, BAND = "#23272e", "#e3e6ea", "#eef2f6"
COLOURS = {
    "all_reduce": "#4269d0",
    "reduce_scatter": "#3ca951",
    "gathers": "#efb118",
    "int8_all_reduce": "#ff725c",
    "projections alone": "#9498a0",
}


def family(op: str) -> str:
    """What a colour stands for."""
    if op == "none":
        return "projections alone"
    if op.startswith(("all_gather", "latent_all_gather")):
        return "gathers"
    return next(name for name in COLOURS if op.startswith(name))


def read(name: str) -> list[dict[str, str]]:
    """The rows of a file."""
    with (HERE / name).open(newline="") as file:
        return list(csv.DictReader(file))


def text(x: float, y: float, words: str, size: int = 12, anchor: str = "start", weight: str = "400") -> str:
    """A line of words."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}">{words}</text>'
    )


class Axes:
    """A square panel with logarithmic x, and logarithmic or linear y."""

    def __init__(self, left: float, x: tuple[float, float], y: tuple[float, float], log_y: bool) -> None:
        self.left, self.x, self.y, self.log_y = left, x, y, log_y

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point on the page."""
        across = math.log(x / self.x[0]) / math.log(self.x[1] / self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        if self.log_y:
            up = math.log(y / self.y[0]) / math.log(self.y[1] / self.y[0])
        return self.left + across * SIDE, TOP + SIDE - up * SIDE

    def line(self, points: list[tuple[float, float]], style: str) -> str:
        """A line through points of the page."""
        return f'<polyline fill="none" {style} points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>'


def scatter(rows: list[dict[str, str]]) -> Iterator[str]:
    """Predicted over measured."""
    axes = Axes(LEFT, (2, 5000), (2, 5000), True)
    yield text(
        LEFT,
        22,
        f"{len(rows)} boundary times, {median_error(rows):.1%} off at the median",
        15,
        weight="600",
    )
    yield text(LEFT, 41, "predicted over measured, us; the band is plus and minus 25 %", 12)
    band = [axes.at(x, min(max(x * f, 2), 5000)) for f, xs in ((1.25, (2, 4000)), (0.75, (5000, 2.7))) for x in xs]
    yield f'<polygon fill="{BAND}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in band)}"/>'
    for tick in (10, 100, 1000):
        yield axes.line([axes.at(tick, 2), axes.at(tick, 5000)], f'stroke="{GRID}"')
        yield axes.line([axes.at(2, tick), axes.at(5000, tick)], f'stroke="{GRID}"')
        x, y = axes.at(tick, 2)
        yield text(x, y + 18, f"{tick:,}", anchor="middle")
        x, y = axes.at(2, tick)
        yield text(x - 7, y + 4, f"{tick:,}", anchor="end")
    yield axes.line([axes.at(2, 2), axes.at(5000, 5000)], f'stroke="{INK}" stroke-width="1"')
    for row in rows:
        x, y = axes.at(float(row["measured_us"]), float(row["predicted_us"]))
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{COLOURS[family(row["op"])]}" fill-opacity="0.7"/>'
    for index, (name, colour) in enumerate(COLOURS.items()):
        y = TOP + 22 + 18 * index
        yield f'<circle cx="{LEFT + 16}" cy="{y - 4}" r="4" fill="{colour}"/>' + text(LEFT + 26, y, name)
    yield text(LEFT + SIDE / 2, TOP + SIDE + 38, "measured, us", anchor="middle")


def regrets(rows: list[dict[str, str]]) -> Iterator[str]:
    """The plan's step over its best rival's, by tokens."""
    left = LEFT + SIDE + GAP
    axes = Axes(left, (1, 16384), (0.94, 1.02), False)
    worst = max(float(row["regret"]) for row in rows)
    yield text(left, 22, f"The plan against its best rival: at worst {worst:.3f}x", 15, weight="600")
    yield text(left, 41, "step time over that of the best alternative measured", 12)
    for tick in (0.94, 0.96, 0.98, 1.0, 1.02):
        style = f'stroke="{INK if tick == 1.0 else GRID}"'
        yield axes.line([axes.at(1, tick), axes.at(16384, tick)], style)
        x, y = axes.at(1, tick)
        yield text(x - 7, y + 4, f"{tick:.2f}", anchor="end")
    for tick in (1, 16, 256, 4096):
        x, y = axes.at(tick, 0.94)
        yield text(x, y + 18, f"{tick:,}", anchor="middle")
    series = (
        ("qwen3-32b", "prefill", "#4269d0", "Qwen3-32B prefill"),
        ("qwen3-32b", "decode", "#97bbf5", "Qwen3-32B decode"),
        ("deepseek-r1", "prefill", "#a463f2", "DeepSeek-R1 prefill"),
        ("deepseek-r1", "decode", "#d3b1f8", "DeepSeek-R1 decode"),
    )
    for index, (model, mode, colour, label) in enumerate(series):
        points = [
            axes.at(float(r["tokens"]), max(0.94, float(r["regret"])))
            for r in rows
            if r["deployment"].startswith(model) and r["mode"] == mode
        ]
        yield axes.line(points, f'stroke="{colour}" stroke-width="2"')
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points)
        x, y = left + 16 + 170 * (index // 2), TOP + 22 + 18 * (index % 2)
        yield f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{colour}"/>' + text(x + 10, y, label)
    yield text(left + SIDE / 2, TOP + SIDE + 38, "tokens", anchor="middle")


def median_error(rows: list[dict[str, str]]) -> float:
    """Of the predictions."""
    errors = sorted(abs(float(r["predicted_us"]) / float(r["measured_us"]) - 1) for r in rows)
    return errors[len(errors) // 2]


def chart(machine: str) -> str:
    """Both panels of a machine."""
    width, height = LEFT + 2 * SIDE + GAP + 24, TOP + SIDE + 52
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" fill="{INK}">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *scatter(read(f"{machine}-boundaries.csv")),
        *regrets(read(f"{machine}-outcomes.csv")),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main() -> None:
    """Draw every machine's."""
    for path in sorted(HERE.glob("*-boundaries.csv")):
        machine = path.name.removesuffix("-boundaries.csv")
        (HERE / f"{machine}.svg").write_text(chart(machine))


if __name__ == "__main__":
    main()
