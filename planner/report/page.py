"""The page: pictures, tables and text in one HTML file. It loads nothing, from anywhere."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from html import escape
from importlib.resources import files
from pathlib import Path

from ..strategy.files import note_read, write_text_atomically
from .chart import WIDTHS, Chart, Key, swatch
from .table import Table, breakable


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


def write_page(page: Page, path: str | Path) -> None:
    """Write the page, whole or not at all."""
    write_text_atomically(path, html_of(page))


def html_of(page: Page) -> str:
    """The page as one HTML text."""
    style, script = _resource("page.css"), _resource("page.js")
    parts = [("What people ask", _answers(page))] if page.answers else []
    parts += [(name, "".join(map(_figure, group))) for name, group in page.sections if group]
    parts += [(table.title, _paragraph(table.note) + table.html()) for table in page.tables]
    links = "".join(f'<a href="#part-{index}">{escape(name)}</a>' for index, (name, _) in enumerate(parts))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(page.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#main">Skip to the report</a>\n{_header(page)}'
        f'<nav aria-label="Parts of the report">{links}</nav>\n<main id="main" tabindex="-1">\n'
        + "".join(_part(index, name, inside) for index, (name, inside) in enumerate(parts))
        + f"</main>\n{_footer(page)}<script>{script}</script>\n</body>\n</html>\n"
    )


def _policy(script: str) -> str:
    """Nothing may be fetched, and no script may run but the page's own."""
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'"


def _resource(name: str) -> str:
    """A file of this package, which no page may be written onto."""
    path = Path(str(files(__package__).joinpath(name)))
    note_read(path)
    return path.read_text(encoding="utf-8")


def _header(page: Page) -> str:
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in page.facts)
    return f"<header><h1>{_words(page.title)}</h1><p>{escape(page.subtitle)}</p><dl>{facts}</dl></header>\n"


def _part(index: int, name: str, inside: str) -> str:
    heading = f'<h2 id="part-{index}" tabindex="-1">{escape(name)}</h2>'
    return f'<section aria-labelledby="part-{index}">{heading}{inside}</section>\n'


def _answers(page: Page) -> str:
    cards = "".join(f"<article><h3>{_words(q)}</h3><p>{_words(a)}</p></article>" for q, a in page.answers)
    return f'<div class="answers">{cards}</div>'


def _paragraph(words: str) -> str:
    return f"<p>{escape(words)}</p>" if words else ""


def _words(words: str) -> str:
    """Text that may be broken inside of long names, and not right after the dashes of an option."""
    return _OPTION.sub(r"<span>\g<0></span>", breakable(words))


_OPTION = re.compile(r"--\w+")


def _figure(chart: Chart) -> str:
    """A chart: its picture at every width, its legend, its tables behind a button that opens them."""
    finding = escape(chart.finding, quote=True)
    pictures = "".join(chart.plot.drawn(width) for width in WIDTHS.values())
    rows = len(chart.tables[0].rows)
    tables = "".join(
        table.html() if index == 0 else f"<h4>{escape(table.title)}</h4>{table.html()}"
        for index, table in enumerate(chart.tables)
    )
    return (
        f"<figure><figcaption><h3>{_words(chart.finding)}</h3><p>{_words(chart.about)}</p></figcaption>"
        f'{_legend(chart.plot.keys)}<div class="plot" role="img" aria-label="{finding}">{pictures}</div>'
        f"<details><summary>The figures as a table <small>{rows} rows</small></summary>{tables}</details></figure>"
    )


def _legend(keys: Sequence[Key]) -> str:
    """Buttons: each brings its part of the picture to the fore."""
    entries = "".join(
        f'<li><button type="button" aria-pressed="false" data-key="{index}">'
        f"{swatch(key)}<span>{breakable(key.name)}</span></button></li>"
        for index, key in enumerate(keys)
    )
    return f'<ul class="legend" aria-label="Legend">{entries}</ul>' if keys else ""


def _footer(page: Page) -> str:
    notes = "".join(f"<li>{escape(note[0].upper() + note[1:])}.</li>" for note in page.notes)
    return f"<footer><ul>{notes}</ul></footer>\n" if notes else ""
