"""Axes: from values to shares of a length, with ticks at round numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from .svg import width_of

_GAP = 10  # px between the labels of neighbouring ticks
_FEW = 14  # values that each have a tick


@dataclass(frozen=True)
class Axis:
    """`ticks` are values with their labels, in order."""

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    is_log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, from 0 at the low end to 1."""
        low, high, at = (log10(v) if self.is_log else v for v in (self.low, self.high, value))
        return 0.5 if high == low else (at - low) / (high - low)


def linear(title: str, low: float, high: float, label: Callable[[float, int], str], most: int = 6) -> Axis:
    """A linear axis with at most so many ticks; `label` is given a value and the decimals that tell ticks apart."""
    step = _round_step((high - low) / most)
    decimals = max(0, -floor(log10(step) + 1e-9))
    ticks = [step * k for k in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]
    return Axis(title, low, high, [(tick, label(tick, decimals)) for tick in ticks])


def of_values(title: str, values: Sequence[float], is_log: bool) -> Axis:
    """An axis with a tick at each value where they are few, else at round ones."""
    low, high = min(values), max(values)
    if not is_log and len(values) > _FEW:
        return linear(title, low, high, lambda value, decimals: f"{value:,.{decimals}f}")
    room = 1.0 if is_log else 0.02 * (high - low)
    ends = (low, high) if is_log else (low - room, high + room)
    shown: Sequence[float] = values if len(values) <= _FEW else [v for v in _powers(low, high) if low <= v <= high]
    return Axis(title, *ends, [(value, f"{value:,.10g}") for value in sorted(shown)], is_log)


def of_tokens(counts: Sequence[int]) -> Axis:
    """A logarithmic axis of token counts, with ticks at powers of four and both ends."""
    low, high = counts[0], counts[-1]
    ticks = [4**k for k in range(12) if low <= 4**k <= high]
    if not ticks or ticks[0] > 1.6 * low:
        ticks.insert(0, low)
    if ticks[-1] * 1.6 < high:
        ticks.append(high)
    return Axis("tokens in one forward", low, high, [(tick, f"{tick:,}") for tick in ticks], is_log=True)


def placed(axis: Axis, start: float, length: float, width: float) -> list[tuple[float, float, str]]:
    """Position of each tick, and of the middle of its label, inside the picture; those that would collide are out.

    Both ends come first: they say what the axis spans.
    """
    ticks = list(axis.ticks)
    order = [*ticks[:1], *ticks[-1:], *ticks[1:-1]] if len(ticks) > 1 else ticks
    found: list[tuple[float, float, str]] = []
    taken: list[tuple[float, float]] = []
    for value, label in order:
        half = width_of(label) / 2
        at = start + length * axis.share(value)
        middle = min(max(at, half), width - half)
        if all(middle + half + _GAP <= low or high + _GAP <= middle - half for low, high in taken):
            taken.append((middle - half, middle + half))
            found.append((at, middle, label))
    return sorted(found)


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is no smaller."""
    if least <= 0:
        return 1.0
    power = 10.0 ** floor(log10(least))
    return next(power * k for k in (1, 2, 5, 10) if power * k >= least * (1 - 1e-9))


def _powers(low: float, high: float) -> list[float]:
    return [10.0**k for k in range(floor(log10(low)), ceil(log10(high)) + 1)]
