"""Printing for people: aligned tables, numbers with units, colour only on a terminal (click strips it elsewhere)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    click.echo(json.dumps(value, allow_nan=False))


def heading(text: str) -> None:
    """A line that opens a section."""
    click.secho(text, bold=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> None:
    """Print an aligned table. `right` marks the right-aligned columns with `r`, as in `lrr`."""
    widths = [max(len(click.unstyle(row[i])) for row in [columns, *rows]) for i in range(len(columns))]
    click.echo("  " + click.style("  ".join(_cells(columns, widths, right)).rstrip(), dim=True))
    for row in rows:
        click.echo("  " + "  ".join(_cells(row, widths, right)).rstrip())


def _cells(row: Sequence[str], widths: list[int], right: str) -> list[str]:
    cells = []
    for i, (text, width) in enumerate(zip(row, widths, strict=True)):
        pad = " " * (width - len(click.unstyle(text)))
        cells.append(pad + text if right[i : i + 1] == "r" else text + pad)
    return cells


def duration(us: float) -> str:
    """`12.3 us`, `4.56 ms` or `7.89 s`."""
    if us < 1000:
        return f"{us:.1f} us"
    if us < 1_000_000:
        return f"{us / 1000:.2f} ms"
    return f"{us / 1_000_000:.3f} s"


def span(first: int, last: int) -> str:
    """`113-16384`, or one number."""
    return str(first) if first == last else f"{first}-{last}"
