"""A chart of the page: its finding, what it shows, and a plotly figure as plain JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log10
from typing import Any


@dataclass(frozen=True)
class Chart:
    """`traces` and `layout` are plotly's; colours named `ink` follow the theme of the page."""

    finding: str
    about: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any]
    height: int = 360
    legend: list[tuple[str, str]] = field(default_factory=list)  # name, colour
    wide: bool = True


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with a quiet title."""
    return {"title": {"text": title, "standoff": 10}, **more}


def token_ticks(counts: list[int]) -> dict[str, Any]:
    """Ticks of a logarithmic axis of token counts, at powers of four and both ends."""
    low, high = counts[0], counts[-1]
    ticks = [4**k for k in range(12) if low <= 4**k <= high]
    if not ticks or ticks[0] > 1.6 * low:
        ticks.insert(0, low)
    if ticks[-1] * 1.6 < high:
        ticks.append(high)
    ends = [log10(low) - 0.01, log10(high) + 0.01]
    return {"type": "log", "range": ends, "tickvals": ticks, "ticktext": [f"{tick:,}" for tick in ticks]}


def milliseconds(us: float) -> str:
    """`12.3 us`, `4.56 ms`, `1.23 s`."""
    if abs(us) < 1000:
        return f"{us:.1f} us"
    if abs(us) < 1_000_000:
        return f"{us / 1000:,.2f} ms" if abs(us) < 100_000 else f"{us / 1000:,.0f} ms"
    return f"{us / 1_000_000:.2f} s"
