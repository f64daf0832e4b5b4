"""Sensitivity file: how much an error at each boundary of each layer matters (w_b of the error budget).

schema: commplan/sensitivity/v1
attn_out: [1.0, 1.0, 0.5]     # one weight per layer
mlp_out: [2.0, 1.0, 0.5]
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from ..strategy.errors import InputError
from ..strategy.yaml_file import read_mapping
from .base import Positive, Spec, build


class Sensitivity(Spec):
    """Weights of errors by boundary, one for each layer."""

    schema_: Literal["commplan/sensitivity/v1"] = Field(alias="schema")
    attn_out: tuple[Positive, ...]
    mlp_out: tuple[Positive, ...]


def read_sensitivity(path: Path, num_hidden_layers: int) -> dict[str, tuple[float, ...]]:
    """Weights by boundary; raises InputError unless there is one per layer."""
    spec = build(Sensitivity, read_mapping(path), str(path))
    weights = {"attn_out": spec.attn_out, "mlp_out": spec.mlp_out}
    for boundary, values in weights.items():
        if len(values) != num_hidden_layers:
            raise InputError(
                f"one weight per layer is needed: {num_hidden_layers}, not {len(values)}",
                file=str(path),
                field=boundary,
            )
    return weights
