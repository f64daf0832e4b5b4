"""The page: charts and text in one HTML file with plotly's script inside. It loads nothing, from anywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path

from ..strategy.files import note_read, write_text_atomically
from ..strategy.packages import check_packages
from .chart import Chart

# Nothing may be fetched: styles and scripts are those of the file itself.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


@dataclass(frozen=True)
class Table:
    """A table of the page; rows of cells as text, with a class for those that are illegal."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    illegal: frozenset[int] = frozenset()
    note: str = ""


@dataclass
class Page:
    """What a report says, from the top down."""

    title: str
    subtitle: str
    facts: list[tuple[str, str]]
    sections: list[tuple[str, list[Chart]]]
    answers: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_plotly(field: str | None = None) -> None:
    """Raise InputError, with the way out, where plotly is not installed."""
    check_packages("plotly", extra="report", field=field)


def write_page(page: Page, path: str | Path) -> None:
    """Write the page, whole or not at all."""
    check_plotly()
    write_text_atomically(path, html_of(page))


def html_of(page: Page) -> str:
    """The page as one HTML text."""
    style, script = (_resource(__package__, name) for name in ("page.css", "page.js"))
    plotly = _resource("plotly", "package_data", "plotly.min.js")
    charts: list[Chart] = [chart for _, group in page.sections for chart in group]
    data = [{"traces": chart.traces, "layout": chart.layout, "height": chart.height} for chart in charts]
    body = "".join(
        [
            _header(page),
            _answers(page),
            *(_section(name, group, charts) for name, group in page.sections),
            *(_table(table) for table in page.tables),
            _footer(page),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(page.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body}</main>\n"
        f"<script>{plotly}</script>\n"
        f'<script type="application/json" id="charts">{_in_script(data)}</script>\n'
        f"<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _resource(package: str, *parts: str) -> str:
    """A file of a package, which no page may be written onto."""
    path = Path(str(files(package).joinpath(*parts)))
    note_read(path)
    return path.read_text(encoding="utf-8")


def _in_script(value: object) -> str:
    """JSON that no text inside can end the script element of."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _header(page: Page) -> str:
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in page.facts)
    return f"<header><h1>{escape(page.title)}</h1><p>{escape(page.subtitle)}</p><dl>{facts}</dl></header>\n"


def _answers(page: Page) -> str:
    if not page.answers:
        return ""
    cards = "".join(f"<article><h3>{escape(q)}</h3><p>{escape(a)}</p></article>" for q, a in page.answers)
    return f'<section class="answers"><h2>What people ask</h2><div>{cards}</div></section>\n'


def _section(name: str, group: list[Chart], charts: list[Chart]) -> str:
    figures = "".join(_figure(chart, charts.index(chart)) for chart in group)
    return f"<section><h2>{escape(name)}</h2>{figures}</section>\n" if group else ""


def _figure(chart: Chart, index: int) -> str:
    keys = "".join(
        f'<li><i style="background:{"var(--ink)" if colour == "ink" else colour}"></i>{escape(name)}</li>'
        for name, colour in chart.legend
    )
    return (
        f"<figure><figcaption><h3>{escape(chart.finding)}</h3><p>{escape(chart.about)}</p><ul>{keys}</ul></figcaption>"
        f'<div class="chart" id="chart-{index}" style="height:{chart.height}px" role="img" '
        f'aria-label="{escape(chart.finding, quote=True)}"></div></figure>'
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join(
        f"<tr{' class=illegal' if index in table.illegal else ''}>"
        + "".join(f"<td>{escape(c)}</td>" for c in row)
        + "</tr>"
        for index, row in enumerate(table.rows)
    )
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    return (
        f"<section><h2>{escape(table.title)}</h2>{note}"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></section>\n'
    )


def _footer(page: Page) -> str:
    notes = "".join(f"<li>{escape(note[0].upper() + note[1:])}.</li>" for note in page.notes)
    return f"<footer><ul>{notes}</ul></footer>\n" if notes else ""
