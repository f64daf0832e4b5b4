"""A map: small panels side by side, each with the same rows, cells of one colour per key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from . import svg as draw
from .chart import Key, group, svg, variant
from .svg import LINE, width_of

_LEAST = 106  # px, the width of a panel at which the names of its columns fit
_APART = 14
_TALLEST = 7  # px of a row


@dataclass(frozen=True)
class Block:
    """Rows first to last of a column (None: over all columns) that are alike; `row` is theirs in the table."""

    column: int | None
    first: int
    last: int
    key: int
    row: int


@dataclass(frozen=True)
class Panel:
    """A panel with its heading, and a block above and below its rows where there is one."""

    heading: Sequence[str]
    blocks: Sequence[Block]
    before: Block | None = None
    after: Block | None = None


@dataclass(frozen=True)
class MapPlot:
    """`columns` are the same in every panel, and so are the `rows`, numbered from 0."""

    panels: Sequence[Panel]
    columns: Sequence[str]
    rows: int
    before: str
    after: str
    keys: Sequence[Key]

    def drawn(self, width: int) -> str:
        """The picture."""
        left = max(width_of(self.before), width_of(self.after)) + 8
        most = max(1, int((width - left + _APART) // (_LEAST + _APART)))
        lines = ceil(len(self.panels) / most)
        per_line = ceil(len(self.panels) / lines)
        across = min((width - left + _APART) / per_line - _APART, 240)
        shape = _Shape(self, across, min(_TALLEST, (200 + 0.13 * width) / self.rows))
        inside = []
        for index, panel in enumerate(self.panels):
            line, place = divmod(index, per_line)
            x, y = left + place * (across + _APART), line * (shape.height + 22)
            inside.append(shape.panel(panel, x, y))
            if place == 0:
                inside.append(shape.labels(x - 6, y))
        return svg(width, lines * (shape.height + 22) - 20, variant(width), *inside)


class _Shape:
    """Sizes of the panels of one picture."""

    def __init__(self, plot: MapPlot, across: float, row: float) -> None:
        self.plot, self.across, self.row = plot, across, row
        self.step = across / len(plot.columns)
        self.headings = [name.split("_") for name in plot.columns]
        self.titles = max(len(panel.heading) for panel in plot.panels)
        self.single = 10  # px, the height of what stands before and after the rows
        self.top = LINE * (self.titles + max(map(len, self.headings))) + 6
        self.first = self.top + self.single + 6
        self.end = self.first + row * plot.rows
        self.height = self.end + 6 + self.single + 2

    def labels(self, x: float, y: float) -> str:
        """Names of the rows, as many as have room."""
        parts = [draw.text(x, y + self.top + 9, self.plot.before, "end")]
        every = next(k for k in (1, 2, 5, 10, 20, 50, 100, 1000, 10_000) if k * self.row >= LINE)
        last = self.plot.rows - 1
        for row in [*(k for k in range(0, last, every) if (last - k) * self.row >= LINE + 2), last]:
            parts.append(draw.text(x, y + self.first + self.row * (row + 0.5) + 4, f"{row}", "end"))
        return "".join([*parts, draw.text(x, y + self.height - 2, self.plot.after, "end")])

    def panel(self, panel: Panel, x: float, y: float) -> str:
        """A panel at a place."""
        parts = [
            draw.text(x, y + LINE * (row + 1) - 3, words, class_="name" if row == 0 else None)
            for row, words in enumerate(panel.heading)
        ]
        for column, words in enumerate(self.headings):
            for row, word in enumerate(words):
                at = y + LINE * (self.titles + row + 1)
                parts.append(draw.text(x + self.step * (column + 0.5), at, word, "middle", "title"))
        parts.append(draw.rect(x, y + self.first, self.across, self.end - self.first, "empty"))
        if panel.before is not None:
            parts.append(self._cell(panel.before, x, y + self.top, self.across, self.single))
        for block in panel.blocks:
            start = x + self.step * (block.column or 0)
            top = y + self.first + self.row * block.first
            parts.append(self._cell(block, start + 0.5, top, self.step - 1, self.row * (block.last - block.first + 1)))
        if panel.after is not None:
            parts.append(self._cell(panel.after, x, y + self.end + 6, self.across, self.single))
        return "".join(parts)

    def _cell(self, block: Block, x: float, y: float, width: float, height: float) -> str:
        cell = draw.rect(x, y, width, height, "cell hit", data_row=block.row)
        return group(block.key, self.plot.keys[block.key], cell)
