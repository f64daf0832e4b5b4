"""The report of a sweep: the deployment itself, then every point of the sweep."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..descriptions.loader import load_setup
from ..what_if.evaluation import PLAN
from ..what_if.marginal_answers import Answer
from ..what_if.sweep import Point, Sweep
from .chart import Chart, axis, milliseconds
from .page import Page, Table, write_page
from .sections import facts, headline, sections, subtitle
from .strategy_report import NOTES
from .study import Study

_MOST_ROWS = 2000
_MOST_LINES = 12
_LINES = ("#2f6fd0", "#d9822b", "#1b9a7a", "#8e5bb5", "#b5495b", "#5b7d2c", "#173f80", "#a17c2e", "#6cc5ad", "#8a929e")


def write_what_if(
    path: str | Path, sweep: Sweep, points: Sequence[Point], answers: Sequence[Answer], notes: Sequence[str]
) -> None:
    """Write the page of a sweep."""
    study = Study.planned(sweep.base, lambda *texts: load_setup(sweep.deployment, (*sweep.overrides, *texts)))
    counts = {mode: study.ranges[mode][-1].last for mode in study.modes} | {sweep.mode: sweep.tokens}
    charts = sections(study, counts)
    if (chart := _sweep_chart(sweep, points)) is not None:
        charts.insert(0, ("The sweep", [chart]))
    page = Page(
        title=headline(study),
        subtitle=subtitle(study),
        facts=facts(study),
        sections=charts,
        answers=[(a.question, f"{a.answer[0].upper()}{a.answer[1:]}.") for a in answers],
        tables=[_table(points)],
        notes=[*(note for note in notes if "overlap" not in note), *NOTES],
    )
    write_page(page, path)


def _sweep_chart(sweep: Sweep, points: Sequence[Point]) -> Chart | None:
    """The plan's speed-up over the axis with most numbers; a line for each combination of the other values."""
    others_vary = len(sweep.axes) > 1 or sweep.axes[0].name != "tokens"
    numeric = [
        a for a in sweep.axes if len(a.values) > 1 and all(isinstance(v, int | float) and v > 0 for v in a.values)
    ]
    if not numeric or not others_vary:
        return None
    across = max(numeric, key=lambda a: (a.name == "tokens", len(a.values)))
    lines: dict[tuple[Any, ...], list[Point]] = {}
    for point in points:
        if point.legal:
            lines.setdefault(tuple(v for n, v in point.values.items() if n != across.name), []).append(point)
    if not 0 < len(lines) <= _MOST_LINES:
        return None
    names = [a.name for a in sweep.axes if a.name != across.name]
    labels = [", ".join(f"{n} {v}" for n, v in zip(names, key, strict=True)) or "plan" for key in lines]
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": label,
            "x": [p.values[across.name] for p in line],
            "y": [p.found.over_stock for p in line if p.found],
            "text": [_hover(p) for p in line],
            "hovertemplate": f"{label}: %{{y:.3f}}x  %{{text}}<extra></extra>",
            "line": {"color": _LINES[index % len(_LINES)], "width": 2},
            "marker": {"size": 5},
        }
        for index, (label, line) in enumerate(zip(labels, lines.values(), strict=True))
    ]
    best = max((p for line in lines.values() for p in line), key=lambda p: p.found.over_stock if p.found else 0)
    assert best.found is not None
    where = ", ".join(f"{n} {v}" for n, v in best.values.items())
    spread = max(across.values) / min(across.values)
    few = len(across.values) <= 14
    layout = {
        "xaxis": axis(
            across.field,
            **({"type": "log"} if spread > 20 else {}),
            **({"tickvals": across.values, "ticktext": [f"{v:,}" for v in across.values]} if few else {}),
        ),
        "yaxis": axis("speed-up of the plan over the stock server", tickformat=".2f", ticksuffix="x"),
        "hovermode": "closest",
    }
    illegal = sum(not p.legal for p in points)
    about = f"{len(points)} points" + (f", {illegal} of them illegal (in the table below)" if illegal else "") + "."
    finding = f"The plan gains most at {where}: {best.found.over_stock:.2f}x over the stock server"
    legend = [(label, _LINES[index % len(_LINES)]) for index, label in enumerate(labels)]
    return Chart(finding, about, traces, layout, 380, legend if names else [])


def _hover(point: Point) -> str:
    assert point.found is not None
    parts = point.found.plans[PLAN].parts
    fastest = point.found.fastest_uniform
    return (
        f"{milliseconds(parts.step_us)}, fastest uniform {fastest}; wire times: {parts.provenance_of('communication')}"
    )


def _table(points: Sequence[Point]) -> Table:
    names = list(points[0].values)
    against = ["over stock", "over its best flag", "over library"]
    columns = [*names, "stock", "plan", *against, "communication", "fastest uniform", "numerics"]
    rows, illegal = [], set()
    for index, point in enumerate(points[:_MOST_ROWS]):
        given = [str(value) for value in point.values.values()]
        if point.found is None:
            illegal.add(index)
            rows.append([*given, *("" for _ in columns[len(given) : -1]), f"illegal: {point.reason}"])
            continue
        parts, prices = point.found.plans[PLAN].parts, point.found.held_against
        flag = prices.best_flag
        rows.append(
            [
                *given,
                milliseconds(prices.stock.step_us),
                milliseconds(parts.step_us),
                f"{point.found.over_stock:.3f}x",
                "" if flag is None else f"{flag.step_us / parts.step_us:.3f}x {flag.name}",
                f"{prices.library.step_us / parts.step_us:.3f}x",
                f"{parts.communication_us / parts.step_us:.0%}",
                point.found.fastest_uniform,
                parts.numerics,
            ]
        )
    note = f"The first {_MOST_ROWS} of {len(points)} points; --csv has them all." if len(points) > _MOST_ROWS else ""
    return Table("All points", columns, rows, frozenset(illegal), note)
