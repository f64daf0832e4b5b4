"""Printing for people: headings, aligned tables, numbers with units."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..answers.spelled import duration, span, times
from ..strategy.command_line.terminal import Cell, echo, print_json, rendered, styled, width, write_line

__all__ = ["duration", "heading", "print_json", "print_wrapped", "span", "table", "times"]


def heading(text: str) -> None:
    """A line that opens a section."""
    echo(styled(text, bold=True))


WIDTH = 120
"""Columns that a page of a terminal has, for what can be broken."""


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], right: str = "", below: Sequence[str] = ()) -> None:
    """Print an aligned table. `right` marks the right-aligned columns with `r`, as in `lrr`.

    below  a text for each row, printed under it and broken to the width of a page
    """
    widths = [max(width(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    echo("  ", styled("  ".join(_cells(columns, widths, right)).rstrip(), dim=True))
    indent = " " * (4 + widths[0]) if widths else ""
    for index, row in enumerate(rows):
        write_line("  " + "  ".join(_cells(row, widths, right)).rstrip())
        for line in _broken(below[index], WIDTH - len(indent)) if below else ():
            write_line(indent + line)


def _cells(row: Sequence[Cell], widths: list[int], right: str) -> list[str]:
    cells = []
    for i, (cell, wide) in enumerate(zip(row, widths, strict=True)):
        text, pad = rendered(cell), " " * (wide - width(cell))
        cells.append(pad + text if right[i : i + 1] == "r" else text + pad)
    return cells


def _broken(text: str, room: int) -> list[str]:
    """A text in lines of so many columns, broken behind its separators."""
    lines: list[str] = []
    for part in re.split("(?<=[;·]) ", text):
        if lines and len(lines[-1]) + 1 + len(part) <= room:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return lines


def print_wrapped(text: str, indent: str) -> None:
    """A long line, broken within a page of 120 columns; `indent` stands before what follows."""
    import textwrap

    lines = textwrap.wrap(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    for line in lines:
        echo(line)
