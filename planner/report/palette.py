"""One colour per strategy, op and part, the same in every chart; names as a person reads them.

The hues are told apart by colour-blind readers and keep their order of lightness in print.
"""

from __future__ import annotations

INK = "ink"  # replaced by the page with the text colour of its theme

STRATEGY_COLOURS = {
    "plan": INK,
    "all_reduce": "#8a929e",
    "own_all_reduce": "#4d5663",
    "tp_sp": "#2f6fd0",
    "int8_all_reduce": "#d9822b",
    "mixed_comm": "#1b9a7a",
}
_OTHERS = ("#8e5bb5", "#b5495b", "#5b7d2c", "#a17c2e")

OP_COLOURS = {
    "all_reduce": "#8a929e",
    "reduce_scatter": "#2f6fd0",
    "all_gather": "#8fb6ea",
    "latent_all_gather": "#173f80",
    "reduce_scatter_all_gather": "#5c92df",
    "int8_all_reduce": "#d9822b",
    "all_reduce_all_gather": "#1b9a7a",
    "reduce_scatter_all_reduce": "#6cc5ad",
    "slice": "#d7dce3",
    "fused": "#cfe9e1",
}

# Parts of a step that a choice changes, in the order in which they are stacked.
PART_COLOURS = {
    "communication": "#b5495b",
    "quantize": "#d9822b",
    "norm": "#5b8c5a",
    "residual": "#a8c69f",
    "latent_gemm": "#173f80",
    "padding": "#b9bec7",
}
PART_NAMES = {
    "communication": "communication",
    "quantize": "quantise and dequantise",
    "norm": "norms and residual adds",
    "residual": "residual folds",
    "latent_gemm": "latent GEMM (q_a, kv_a)",
    "padding": "copies and padding",
    "compute": "compute that no choice changes",
}


def strategy_colour(name: str, names: tuple[str, ...] = ()) -> str:
    """The colour of a strategy; strategies that are new here take one of their own by their place among `names`."""
    if name in STRATEGY_COLOURS:
        return STRATEGY_COLOURS[name]
    others = [n for n in names if n not in STRATEGY_COLOURS]
    return _OTHERS[others.index(name) % len(_OTHERS)] if name in others else _OTHERS[0]
