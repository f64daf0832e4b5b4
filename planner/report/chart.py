"""A chart of the page: its finding, what it shows, the picture, and the same figures as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .svg import element
from .table import Table

# A picture is drawn at each of these widths in CSS pixels; the page shows the one that fits, so that its letters keep
# their size on a phone, on paper and on a desk.
WIDTHS = {"narrow": 320, "medium": 560, "wide": 960}


@dataclass(frozen=True)
class Key:
    """An entry of the legend. Parts of the picture whose class is `s` and its position are its own.

    colour  of CSS, of a line or an area; without a dash, marker or width the swatch is an area
    marker  `circle`, `square`, `diamond` or `triangle` at every point
    """

    name: str
    colour: str
    width: float = 0
    dash: str | None = None
    marker: str | None = None


class Plot(Protocol):
    """What draws itself."""

    @property
    def keys(self) -> Sequence[Key]:
        """The entries of the legend."""
        ...

    def drawn(self, width: int) -> str:
        """An `svg` element so wide; elements with `data-row` stand for rows of the chart's first table."""
        ...


@dataclass(frozen=True)
class Chart:
    """`tables` begin with the one that the picture shows; the others say what the figures rest on."""

    finding: str
    about: str
    plot: Plot
    tables: Sequence[Table]


def svg(width: float, height: float, name: str, *inside: str) -> str:
    """A picture; the words about it stand beside it, so readers of the screen leave it out."""
    box = f"0 0 {width:g} {height:.0f}"
    return element("svg", *inside, viewBox=box, class_=name, aria_hidden="true", focusable="false")


def variant(width: int) -> str:
    """The class of the pictures of a width."""
    return next(name for name, size in WIDTHS.items() if size == width)


def group(index: int, key: Key, *inside: str) -> str:
    """What belongs to an entry of the legend, in its colour."""
    return element("g", *inside, class_=f"s s{index}", style=f"color:{key.colour}")


def marker(shape: str, x: float, y: float, size: float = 4) -> str:
    """A mark at a point; shapes differ so that lines are told apart without colour."""
    if shape == "circle":
        return element("circle", cx=x, cy=y, r=size, class_="dot")
    corners = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        "triangle": [(0, -1.2), (1.15, 0.9), (-1.15, 0.9)],
    }[shape]
    return element(
        "path", d="M" + "L".join(f"{x + size * a:.1f},{y + size * b:.1f}" for a, b in corners) + "Z", class_="dot"
    )


def swatch(key: Key) -> str:
    """A small picture of how an entry of the legend looks."""
    if key.width:
        drawn = element("path", d="M0,6H22", class_="line", stroke_width=key.width, stroke_dasharray=key.dash)
        inside = drawn + (marker(key.marker, 11, 6) if key.marker else "")
    elif key.marker:
        inside = marker(key.marker, 11, 6, 5)
    else:
        inside = element("rect", x=5, y=0, width=12, height=12, rx=2, class_="area")
    return element(
        "svg", inside, viewBox="0 0 22 12", width=22, height=12, aria_hidden="true", style=f"color:{key.colour}"
    )


def milliseconds(us: float) -> str:
    """`12.3 us`, `4.56 ms`, `1.23 s`."""
    if abs(us) < 1000:
        return f"{us:.1f} us"
    if abs(us) < 1_000_000:
        return f"{us / 1000:,.2f} ms" if abs(us) < 100_000 else f"{us / 1000:,.0f} ms"
    return f"{us / 1_000_000:.2f} s"
