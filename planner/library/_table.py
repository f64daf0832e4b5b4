"""Tables of a notebook: plain HTML, which it styles."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_MOST_ROWS = 200


def html_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> str:
    """A table under a title. Long ones are cut, and say so."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows[:_MOST_ROWS])
    left = len(rows) - _MOST_ROWS
    said = " ".join(part for part in (note, f"{left} rows more: see to_records()." if left > 0 else "") if part)
    return f"<p><b>{escape(title)}</b></p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" + (
        f"<p>{escape(said)}</p>" if said else ""
    )


def _cell(value: object) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    style = ' style="text-align: right"' if number else ' style="text-align: left"'
    text = "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
    return f"<td{style}>{escape(text)}</td>"
