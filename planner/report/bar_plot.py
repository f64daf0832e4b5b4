"""Stacked bars, one below the other, each named above itself: names of any length fit any width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from . import svg as draw
from .axis import linear, placed
from .chart import Key, group, svg, variant
from .svg import LINE, lines_of

_BAR, _NAME, _GAP = 16, 17, 14  # heights in px


@dataclass(frozen=True)
class Bar:
    """A name, what is said beside it, and a length for every key."""

    name: str
    note: str
    parts: Sequence[float]


@dataclass(frozen=True)
class BarPlot:
    """A row of the table is a bar."""

    bars: Sequence[Bar]
    keys: Sequence[Key]
    title: str

    def drawn(self, width: int) -> str:
        """The picture."""
        longest = max(sum(bar.parts) for bar in self.bars) or 1.0
        axis = linear(self.title, 0, longest, lambda value, decimals: f"{value:,.{decimals}f}", 4 if width < 500 else 8)
        across = width - 8.0
        bottom = len(self.bars) * (_NAME + _BAR + _GAP)
        frame = [draw.line(0, bottom, across, bottom, "base")]
        for x, middle, label in placed(axis, 0, across, width):
            frame.append(draw.line(x, 0, x, bottom + 4, "grid"))
            frame.append(draw.text(middle, bottom + 16, label, "middle"))
        titles = lines_of(axis.title, width)
        for row, words in enumerate(titles):
            frame.append(draw.text(width / 2, bottom + 18 + LINE * (row + 1), words, "middle", "title"))
        names = [_name(row, bar) for row, bar in enumerate(self.bars)]
        parts = [group(index, key, self._part(index, across / longest)) for index, key in enumerate(self.keys)]
        hits = [
            draw.rect(-2, row * (_NAME + _BAR + _GAP), width + 4, _NAME + _BAR + 6, "hit", data_row=row)
            for row in range(len(self.bars))
        ]
        height = bottom + 23 + LINE * len(titles)
        return svg(width, height, variant(width), *frame, *names, *parts, *hits)

    def _part(self, index: int, scale: float) -> str:
        parts = []
        for row, bar in enumerate(self.bars):
            start, length = sum(bar.parts[:index]) * scale, bar.parts[index] * scale
            if length > 0:
                y = row * (_NAME + _BAR + _GAP) + _NAME
                parts.append(draw.rect(start, y, max(length - 1, min(length, 0.6)), _BAR, "area"))
        return "".join(parts)


def _name(row: int, bar: Bar) -> str:
    name = draw.element("tspan", escape(bar.name), class_="name")
    note = draw.element("tspan", escape(bar.note), class_="title", dx=8)
    return draw.element("text", name, note, x=0, y=row * (_NAME + _BAR + _GAP) + 12)
