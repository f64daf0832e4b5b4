"""Sensitivity file: how much an error at each boundary of each layer matters, and what wire formats do to the loss.

schema: commplan/sensitivity/v1
attn_out: [1.0, 1.0, 0.5]     # w_b of the error budget, one weight per layer
mlp_out: [2.0, 1.0, 0.5]

`commplan sensitivity` measures one on a checkpoint, and adds what a perplexity budget goes by:

measured: {model: 9f3c..., ranks: 3, tokens: 4096, perplexity: 15.47, ...}
outliers: {attn_out: [...], mlp_out: [...]}       # largest value of a row over its RMS, mean over rows
formats:
- {wire: int8, group: 64, algorithm: two_shot, error: {attn_out: [...], mlp_out: [...]}, loss: {...}, odd: {...}}
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from ..strategy.errors import InputError
from ..strategy.op_kinds import QUANTIZED_ALL_REDUCE, WIRE_NAMES
from ..strategy.ops import Op
from ..strategy.words import ScaleGroup
from ..strategy.yaml_file import read_mapping
from .base import OneOf, Positive, Spec, Text, build

_PAIR = 2  # ranks: algorithms differ by how often they quantise, whatever their number
Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0, strict=True)]
_AsText = BeforeValidator(lambda value: str(value) if type(value) is int else value)


class PerLayer(Spec):
    """One figure for each layer, by boundary."""

    attn_out: tuple[Finite, ...]
    mlp_out: tuple[Finite, ...]


class Measured(Spec):
    """What the effects were measured on.

    model   fingerprint of the config.json, as strategy files have it
    ranks   whose partial sums were quantised
    tokens  of the text, whose hash is `text`
    """

    model: Text
    ranks: Count
    tokens: Count
    window: Count
    text: Text
    perplexity: Positive
    loss: NotNegative
    dtype: Text
    method: Text
    versions: Text


class FormatEffects(Spec):
    """A wire format with its columns of a scale and algorithm: what a sum in it does at every place.

    error  relative RMS error of the sum
    loss   what the mean loss of a token rises by, in nats; `odd`: the part of it that another text has otherwise
    """

    wire: Annotated[str, OneOf(WIRE_NAMES)]
    group: Annotated[ScaleGroup, _AsText]
    algorithm: Literal["gather", "two_shot"]
    error: PerLayer
    loss: PerLayer
    odd: PerLayer | None = None


class Sensitivity(Spec):
    """Weights of errors by boundary, one for each layer; where measured, effects of wire formats on the loss."""

    schema_: Literal["commplan/sensitivity/v1"] = Field(alias="schema")
    attn_out: tuple[Positive, ...]
    mlp_out: tuple[Positive, ...]
    measured: Measured | None = None
    outliers: PerLayer | None = None
    worst_outliers: PerLayer | None = None
    formats: tuple[FormatEffects, ...] = ()

    @model_validator(mode="after")
    def _effects_say_what_they_are_of(self) -> Sensitivity:
        if self.formats and self.measured is None:
            raise ValueError("formats have effects, so `measured` must say what those were measured on")
        return self

    def weights(self) -> dict[str, tuple[float, ...]]:
        """Of errors, by boundary."""
        return {"attn_out": self.attn_out, "mlp_out": self.mlp_out}

    def effects_of(self, op: Op) -> FormatEffects | None:
        """What a quantised sum does at every place; None where it was not measured.

        A gather quantises once where two shots do so twice: measured by an algorithm of larger error alone, it counts
        as much.
        """
        if op.wire is None:
            return None
        name, group, errors = op.wire.name, op.scale_group or "token", QUANTIZED_ALL_REDUCE.errors
        found = {each.algorithm: each for each in self.formats if (each.wire, each.group) == (name, group)}
        if op.algorithm in found:
            return found[op.algorithm]

        def error(algorithm: str | None) -> float:
            return errors[name, group, algorithm].at(_PAIR)

        worse = [algorithm for algorithm in found if error(algorithm) >= error(op.algorithm)]
        return found[min(worse, key=error)] if worse else None


def read_sensitivity(path: Path, num_hidden_layers: int) -> Sensitivity:
    """A file with one figure per layer everywhere; raises InputError where there are more or fewer."""
    spec = build(Sensitivity, read_mapping(path), str(path))
    for field, values in _lists(spec):
        if len(values) != num_hidden_layers:
            raise InputError(
                f"one weight per layer is needed: {num_hidden_layers}, not {len(values)}", file=str(path), field=field
            )
    return spec


def _lists(spec: Sensitivity) -> Iterator[tuple[str, tuple[float, ...]]]:
    yield from spec.weights().items()
    found = [("outliers", spec.outliers), ("worst_outliers", spec.worst_outliers)]
    for index, each in enumerate(spec.formats):
        found += [(f"formats[{index}].{name}", getattr(each, name)) for name in ("error", "loss", "odd")]
    for field, lists in found:
        if lists is not None:
            yield f"{field}.attn_out", lists.attn_out
            yield f"{field}.mlp_out", lists.mlp_out
