"""The report of a sweep: the deployment itself, then every point of the sweep."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..descriptions.loader import load_setup
from ..what_if.evaluation import PLAN
from ..what_if.fields import Axis
from ..what_if.marginal_answers import Answer
from ..what_if.sweep import Point, Sweep
from .axis import linear, of_values
from .chart import Chart, Key, milliseconds
from .page import Page, write_page
from .palette import LINES, on_card
from .sections import facts, headline, sections, subtitle
from .strategy_report import NO_OVERLAP, NOTES
from .study import Study
from .table import Cell, Table
from .xy_plot import Series, XYPlot, times

_MOST_ROWS = 1000  # a page stays below 1.5 MB
_MOST_LINES, _MOST_VALUES = 12, 50  # that are drawn
_MARKERS = ("circle", "square", "diamond", "triangle")


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
        notes=[*(note for note in notes if "overlap" not in note), NO_OVERLAP, *NOTES],
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
    shown = _spread(across.values)
    for point in points:
        if point.legal and point.values[across.name] in shown:
            lines.setdefault(tuple(v for n, v in point.values.items() if n != across.name), []).append(point)
    if not 0 < len(lines) <= _MOST_LINES:
        return None
    names = [a.name for a in sweep.axes if a.name != across.name]
    short = _short(names)
    labels = [", ".join(f"{n} {v}" for n, v in zip(short, key, strict=True)) or "plan" for key in lines]
    plot = _plot(across, dict(zip(labels, lines.values(), strict=True)))
    best = max(points, key=lambda point: point.found.over_stock if point.found else 0)
    assert best.found is not None
    where = ", ".join(f"{n} {v}" for n, v in best.values.items())
    illegal = sum(not p.legal for p in points)
    about = f"{len(points):,} points" + (f", {illegal} of them illegal (in the table of all points)" if illegal else "")
    if len(shown) < len(across.values):
        about += f"; {len(shown)} of {len(across.values):,} values of {across.name} are drawn"
    finding = f"The plan gains most at {where}: {best.found.over_stock:.2f}x over the stock server"
    return Chart(finding, f"{about}.", plot, [_drawn(lines.values(), across, [*names, across.name])])


def _spread(values: Sequence[Any]) -> list[Any]:
    """At most so many values as are drawn, evenly spread along the axis, with both ends."""
    ordered = sorted(values)
    if len(ordered) <= _MOST_VALUES:
        return ordered
    low, high, last = ordered[0], ordered[-1], _MOST_VALUES - 1
    wanted = [
        low * (high / low) ** (k / last) if _is_log(values) else low + (high - low) * k / last for k in range(last)
    ]
    return sorted({high, *(ordered[bisect_left(ordered, value * (1 - 1e-9))] for value in wanted)})


def _is_log(values: Sequence[Any]) -> bool:
    return bool(max(values) > 20 * min(values))


def _short(names: list[str]) -> list[str]:
    """The last parts of the names of fields, where those differ."""
    ends = [name.rpartition(".")[2] for name in names]
    return ends if len(set(ends)) == len(ends) else names


def _plot(across: Axis, lines: dict[str, list[Point]]) -> XYPlot:
    series = [
        Series(
            Key(label, on_card(LINES[index % len(LINES)]), 2, marker=_MARKERS[index % len(_MARKERS)]),
            [(p.values[across.name], None if p.found is None else p.found.over_stock) for p in _in_order(line, across)],
        )
        for index, (label, line) in enumerate(lines.items())
    ]
    gains = [y for each in series for _, y in each.points if y is not None]
    room = max(0.02, 0.08 * (max(gains) - min(gains)))
    return XYPlot(
        series,
        of_values(across.field, across.values, _is_log(across.values)),
        linear("speed-up of the plan over the stock server", min(gains) - room, max(gains) + room, times),
        [each.key for each in series],
        by_x=False,
    )


def _in_order(line: list[Point], across: Axis) -> list[Point]:
    return sorted(line, key=lambda point: point.values[across.name])


def _drawn(lines: Iterable[list[Point]], across: Axis, names: Sequence[str]) -> Table:
    """A row per point of the picture, line by line."""
    rows = []
    for point in (p for line in lines for p in _in_order(line, across)):
        assert point.found is not None
        parts = point.found.plans[PLAN].parts
        gain, wire = f"{point.found.over_stock:.3f}x", parts.provenance_of("communication")
        given = [str(point.values[name]) for name in names]
        rows.append([*given, gain, milliseconds(parts.step_us), point.found.fastest_uniform, wire])
    columns = [*names, "over stock", "step", "fastest uniform", "wire times from"]
    words = frozenset({len(columns) - 2, len(columns) - 1})
    return Table("Speed-up of the plan over the stock server, and time of a step", columns, rows, words)


def _table(points: Sequence[Point]) -> Table:
    names = list(points[0].values)
    against = ["over stock", "over its best flag", "over library"]
    columns = [*names, "stock", "plan", *against, "communication", "fastest uniform", "numerics"]
    rows: list[list[str | Cell]] = []
    illegal = set()
    for index, point in enumerate(points[:_MOST_ROWS]):
        given = [str(value) for value in point.values.values()]
        if point.found is None:
            illegal.add(index)
            rows.append([*given, *("" for _ in columns[len(given) : -1]), f"illegal: {point.reason}"])
            continue
        parts, prices = point.found.plans[PLAN].parts, point.found.held_against
        flag = prices.helping_flag
        rows.append(
            [
                *given,
                milliseconds(prices.stock.step_us),
                milliseconds(parts.step_us),
                f"{point.found.over_stock:.3f}x",
                "–" if flag is None else Cell(f"{flag.step_us / parts.step_us:.3f}x", flag.name),
                f"{prices.library.step_us / parts.step_us:.3f}x",
                f"{parts.communication_us / parts.step_us:.0%}",
                point.found.fastest_uniform,
                parts.numerics,
            ]
        )
    note = f"The first {_MOST_ROWS} of {len(points)} points; --csv has them all." if len(points) > _MOST_ROWS else ""
    words = frozenset({len(columns) - 2, len(columns) - 1})
    return Table("All points", columns, rows, words, frozenset(illegal), note)
