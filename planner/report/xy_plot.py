"""Lines and points over two axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from . import svg as draw
from .axis import Axis, placed
from .chart import Key, group, marker, svg, variant
from .svg import LINE, lines_of, width_of

_EDGE = 8  # px between the outermost mark and the edge
_REACH = 11  # px around a point within which it is meant


@dataclass(frozen=True)
class Series:
    """Points of one look, by growing x; None where there is none, which breaks the line. `stairs`: flat, then down."""

    key: Key
    points: Sequence[tuple[float, float | None]]
    stairs: bool = False


@dataclass(frozen=True)
class Mark:
    """A place on the x axis, named above the lines."""

    x: float
    words: str
    colour: str


@dataclass(frozen=True)
class XYPlot:
    """Series in the order in which they are drawn.

    legend   keys in the order of the legend
    by_x     True: a row of the table is an x of the series; False: it is a point, series by series
    """

    series: Sequence[Series]
    x: Axis
    y: Axis
    legend: Sequence[Key]
    marks: Sequence[Mark] = ()
    by_x: bool = True

    @property
    def keys(self) -> Sequence[Key]:
        """The legend."""
        return self.legend

    def drawn(self, width: int) -> str:
        """The picture."""
        return _Picture(self, width).svg()


class _Picture:
    """One picture of a plot: where things lie."""

    def __init__(self, plot: XYPlot, width: int) -> None:
        self.plot, self.width = plot, width
        self.left = max(width_of(label) for _, label in plot.y.ticks) + 8
        self.across = width - self.left - _EDGE
        self.above = lines_of(plot.y.title, width)
        self.below = lines_of(plot.x.title, self.across)
        self.notes = self._noted()
        rows = 1 + max((row for _, row, _, _ in self.notes), default=-1)
        self.top = LINE * len(self.above) + 8 + LINE * rows
        self.down = 150 + 0.17 * width
        self.bottom = self.top + self.down
        self.height = self.bottom + 23 + LINE * len(self.below)

    def at_x(self, value: float) -> float:
        return self.left + self.across * self.plot.x.share(value)

    def at_y(self, value: float) -> float:
        return self.bottom - self.down * self.plot.y.share(value)

    def svg(self) -> str:
        plot = self.plot
        drawn = [group(plot.legend.index(each.key), each.key, self._series(each)) for each in plot.series]
        return svg(
            self.width, self.height, variant(self.width),
            self._frame(), self._marks(), *drawn, self._bands() if plot.by_x else self._spots(),
        )  # fmt: skip

    def _frame(self) -> str:
        right = self.width - _EDGE
        parts = [draw.text(0, LINE * (row + 1) - 3, words, class_="title") for row, words in enumerate(self.above)]
        for value, label in self.plot.y.ticks:
            y = self.at_y(value)
            parts.append(draw.line(self.left, y, right, y, "grid"))
            parts.append(draw.text(self.left - 6, y + 4, label, "end"))
        parts.append(draw.line(self.left, self.bottom, right, self.bottom, "base"))
        for x, middle, label in placed(self.plot.x, self.left, self.across, self.width):
            parts.append(draw.line(x, self.bottom, x, self.bottom + 4, "base"))
            parts.append(draw.text(middle, self.bottom + 16, label, "middle"))
        for row, words in enumerate(self.below):
            y = self.bottom + 21 + LINE * (row + 1) - 3
            parts.append(draw.text(self.left + self.across / 2, y, words, "middle", "title"))
        return "".join(parts)

    def _noted(self) -> list[tuple[Mark, int, float, str]]:
        """Each mark with its row above the lines, and where its words are anchored: none covers another."""
        found: list[tuple[Mark, int, float, str]] = []
        rows: list[list[tuple[float, float]]] = []
        for note in self.plot.marks:
            x, long = self.at_x(note.x), width_of(note.words) + 5
            anchor = "start" if x + long <= self.width else "end"
            if anchor == "end" and x < long:  # wider than either side: as far right as it fits
                anchor, x = "start", self.width - long
            span = (x, x + long + 5) if anchor == "start" else (x - long - 5, x)
            row = next((r for r, taken in enumerate(rows) if all(span[1] <= a or b <= span[0] for a, b in taken)), None)
            if row is None:
                row = len(rows)
                rows.append([])
            rows[row].append(span)
            found.append((note, row, x + 4 if anchor == "start" else x - 4, anchor))
        return found

    def _marks(self) -> str:
        parts = []
        first = LINE * len(self.above) + 4
        for note, row, x, anchor in self.notes:
            at, y = self.at_x(note.x), first + LINE * row
            parts.append(draw.line(at, y + 2, at, self.bottom, "mark"))
            parts.append(draw.text(x, y + 10, note.words, anchor, "note", style=f"color:{note.colour}"))
        return "".join(parts)

    def _series(self, series: Series) -> str:
        places = [(self.at_x(x), None if y is None else self.at_y(y)) for x, y in series.points]
        key, parts = series.key, []
        if key.width:
            look = {"stroke_width": key.width, "stroke_dasharray": key.dash}
            path = _path(places, series.stairs)
            parts.append(draw.element("path", d=path, class_="line", **look) if path else "")
        if key.marker:
            size = 4 if key.width else 6
            parts += [marker(key.marker, x, y, size) for x, y in places if y is not None]
        return "".join(parts)

    def _bands(self) -> str:
        """A band around every x: what the pointer and the arrow keys find."""
        places = [self.at_x(x) for x, _ in self.plot.series[0].points]
        edges = [self.left, *((a + b) / 2 for a, b in pairwise(places)), self.width - _EDGE]
        parts = []
        for row, x in enumerate(places):
            band = draw.rect(edges[row], self.top, edges[row + 1] - edges[row], self.down)
            parts.append(
                draw.element("g", band, draw.line(x, self.top, x, self.bottom, "here"), class_="hit", data_row=row)
            )
        return "".join(parts)

    def _spots(self) -> str:
        spots = [(x, y) for series in self.plot.series for x, y in series.points]
        return "".join(
            draw.element("circle", cx=self.at_x(x), cy=self.at_y(y), r=_REACH, class_="hit", data_row=row)
            for row, (x, y) in enumerate(spots)
            if y is not None
        )


def _path(places: Sequence[tuple[float, float | None]], stairs: bool) -> str:
    parts, before = [], None
    for x, y in places:
        if y is not None:
            at = f"{x:.1f},{y:.1f}"
            parts.append(f"M{at}" if before is None else f"H{x:.1f}L{at}" if stairs else f"L{at}")
        before = y
    return "".join(parts)


def times(value: float, decimals: int) -> str:
    """A ratio as the label of a tick."""
    return f"{value:.{max(2, decimals)}f}x"
