"""Printing for people: headings, aligned tables, numbers with units."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..answers.spelled import duration, span, times
from ..strategy.command_line.terminal import (
    Cell,
    Part,
    echo,
    print_json,
    rendered,
    room,
    styled,
    width,
    wrapped,
    write_line,
)

__all__ = ["duration", "heading", "print_json", "print_wrapped", "span", "table", "times"]


def heading(text: str) -> None:
    """A line that opens a section."""
    echo(styled(text, bold=True))


WIDTH = 120
"""Columns that a page of a terminal has, for what can be broken."""


_INDENT = 4  # of what stands under the first cell of a row, where rows are stacked
_LAST = 24  # columns that the last cell of a row needs, to be broken in its place


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], right: str = "", below: Sequence[str] = ()) -> None:
    """Print an aligned table. `right` marks the right-aligned columns with `r`, as in `lrr`.

    below  a text for each row, printed under it and broken to the width of a page

    On a terminal that is too narrow the last cell is broken in its place, or each row is told in words of its own.
    """
    widths = [max(width(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    narrow, indent = room(), 4 + (widths[0] if widths else 0)
    before_last = 2 + sum(widths[:-1]) + 2 * (len(widths) - 1)
    if narrow is None or before_last + widths[-1] <= narrow:
        narrow = None
    elif right[len(widths) - 1 :] == "r" or before_last + _LAST > narrow:
        _print_stacked(columns, rows, below, narrow)
        return
    echo("  ", styled("  ".join(_cells(columns, widths, right)).rstrip(), dim=True), whole=True)
    for index, row in enumerate(rows):
        last = [row[-1]] if narrow is None else wrapped(row[-1], narrow - before_last, narrow - before_last)
        write_line("  " + "  ".join(_cells([*row[:-1], last[0]], widths, right)).rstrip())
        for line in last[1:]:
            write_line(" " * before_last + rendered(line))
        _print_below(below[index : index + 1], indent)


def _print_stacked(columns: Sequence[str], rows: Sequence[Sequence[Cell]], below: Sequence[str], narrow: int) -> None:
    """Each row as its first cell, with the others behind and under it, each after the name of its column."""
    for index, row in enumerate(rows):
        lines: list[list[Cell]] = [[row[0]]]
        for name, cell in zip(columns[1:], row[1:], strict=True):
            if not width(cell):
                continue
            named: Cell = (f"{name} " if name else "", *_parts(cell))
            if _INDENT + sum(width(each) + 2 for each in lines[-1]) + width(named) > narrow:
                lines.append([])
            lines[-1].append(named)
        indent = 2
        for cells in lines:
            joined = tuple(part for cell in cells for part in ("  ", *_parts(cell)))[1:]
            first, *others = wrapped(joined, narrow - indent, narrow - _INDENT - 2)
            write_line(" " * indent + rendered(first))
            for line in others:
                write_line(" " * (_INDENT + 2) + rendered(line))
            indent = _INDENT
        _print_below(below[index : index + 1], _INDENT)


def _print_below(texts: Sequence[str], indent: int) -> None:
    """Lines under a row: broken behind their separators, and on a narrow terminal anywhere."""
    columns = min(WIDTH, room() or WIDTH) - indent
    for text in texts:
        for line in _broken(text, columns):
            for part in wrapped(line, columns, columns) if room() else [line]:
                write_line(" " * indent + rendered(part))


def _parts(cell: Cell) -> tuple[Part, ...]:
    return cell if isinstance(cell, tuple) else (cell,)


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
    """A long line, broken within a page of 120 columns or the terminal; `indent` stands before what follows."""
    import textwrap

    lines = textwrap.wrap(
        text, min(WIDTH, room() or WIDTH), subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    for line in lines:
        echo(line)
