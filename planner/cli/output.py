"""Printing for people: headings, aligned tables, numbers with units."""

from __future__ import annotations

from collections.abc import Sequence

from ..strategy.command_line.terminal import Cell, echo, print_json, rendered, styled, width, write_line

__all__ = ["duration", "heading", "print_json", "span", "table"]


def heading(text: str) -> None:
    """A line that opens a section."""
    echo(styled(text, bold=True))


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], right: str = "") -> None:
    """Print an aligned table. `right` marks the right-aligned columns with `r`, as in `lrr`."""
    widths = [max(width(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    echo("  ", styled("  ".join(_cells(columns, widths, right)).rstrip(), dim=True))
    for row in rows:
        write_line("  " + "  ".join(_cells(row, widths, right)).rstrip())


def _cells(row: Sequence[Cell], widths: list[int], right: str) -> list[str]:
    cells = []
    for i, (cell, wide) in enumerate(zip(row, widths, strict=True)):
        text, pad = rendered(cell), " " * (wide - width(cell))
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
