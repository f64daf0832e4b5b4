"""One colour per strategy and part, the same in every chart (ops have theirs in their records); names for people.

The hues are told apart by colour-blind readers and keep their order of lightness in print.
"""

from __future__ import annotations

from ..strategies import strategies
from ..what_if.evaluation import OWN, PLAN

INK = "ink"  # replaced by the page with the text colour of its theme

_OF_NO_STRATEGY = {PLAN: INK, OWN: "#4d5663"}

STOCK, STOCK_FLAG, STOCK_COLOUR = "stock server", "its best flag", "#8e5bb5"

# Parts of a step that a choice changes, in the order in which they are stacked.
PART_COLOURS = {
    "communication": "#b5495b",
    "quantize": "#d9822b",
    "norm": "#5b8c5a",
    "residual": "#a8c69f",
    "latent_gemm": "#173f80",
    "padding": "#b9bec7",
    "host_wait": "#8a6d3b",
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


def strategy_colour(name: str) -> str:
    """The colour of a strategy, or of a plan that is none."""
    return _OF_NO_STRATEGY[name] if name in _OF_NO_STRATEGY else strategies()[name].colour
