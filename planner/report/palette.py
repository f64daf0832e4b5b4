"""One colour per strategy and part, the same in every chart (ops have theirs in their records); names for people.

The hues are told apart by colour-blind readers and keep their order of lightness in print. A colour that the dark or
the light page would swallow is made lighter or darker there until it stands out.
"""

from __future__ import annotations

from functools import cache

from ..strategies import strategies
from ..what_if.evaluation import OWN, PLAN

CARDS = ("#ffffff", "#1a1f27")  # what charts stand on, light and dark: page.css has them too
INK = "var(--ink)"
# Least contrast on the light card and on the dark one. Areas have an edge besides.
LINE, AREA, TEXT = (3.0, 3.0), (1.35, 2.2), (4.6, 4.6)

_OF_NO_STRATEGY = {OWN: "#4d5663"}

STOCK, STOCK_FLAG, STOCK_COLOUR = "stock server", "its best flag", "#8e5bb5"

# Lines that are no strategies, in order. With the four shapes of points, 36 look different.
LINES = ("#2f6fd0", "#d9822b", "#1b9a7a", "#b5495b", "#173f80", "#8a929e", "#93b8f0", "#556b2f", "#0a7a8a")

# Parts of a step that a choice changes, in the order in which they are stacked.
PART_COLOURS = {
    "communication": "#a63a50",
    "quantize": "#e8a33d",
    "norm": "#178a78",
    "residual": "#b4e2d8",
    "latent_gemm": "#1f4e9c",
    "padding": "#a3a9b5",
    "host_wait": "#84407a",
}
PART_NAMES = {
    "communication": "communication",
    "quantize": "quantise and dequantise",
    "norm": "norms and residual adds",
    "residual": "residual folds",
    "latent_gemm": "latent GEMM (q_a, kv_a)",
    "padding": "copies and padding",
    "host_wait": "waiting for the host to launch",
    "compute": "compute that no choice changes",
}


def strategy_colour(name: str, least: tuple[float, float] = LINE) -> str:
    """The colour of a strategy, or of a plan that is none."""
    if name == PLAN:
        return INK
    return on_card(_OF_NO_STRATEGY[name] if name in _OF_NO_STRATEGY else strategies()[name].colour, least)


@cache
def on_card(colour: str, least: tuple[float, float] = LINE) -> str:
    """The colour as CSS, with at least this contrast to the card in the light theme and in the dark one."""
    light, dark = (_standing_out(colour, card, ratio) for card, ratio in zip(CARDS, least, strict=True))
    return f"light-dark({light},{dark})"


def _standing_out(colour: str, card: str, least: float) -> str:
    """The nearest mix with black or white, away from the card, that has the contrast."""
    away = 0 if _luminance(card) > 0.5 else 255
    for percent in range(0, 101, 4):
        mixed = _hex([round(c + (away - c) * percent / 100) for c in _channels(colour)])
        if contrast(mixed, card) >= least:
            return mixed
    raise AssertionError(f"black and white have contrast enough to {card}")


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2 between two colours."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    shares = [c / 255 for c in _channels(colour)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _channels(colour: str) -> list[int]:
    return [int(colour[k : k + 2], 16) for k in (1, 3, 5)]


def _hex(channels: list[int]) -> str:
    return "#" + "".join(f"{c:02x}" for c in channels)
