"""What quantised sums do, in the unit in which a deployment bounds it: squared relative errors, or the model's loss.

Both add up over the places of a plan, as integers of 1 / (ERROR_UNIT * WEIGHT_UNIT), so that a sum does not depend on
its order. A *vector* says what an op does at each layer; of two ops one may be the better at one layer and the worse
at another, so ways through a layer that many layers share are compared by `Classes`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..strategy.ops import Op

if TYPE_CHECKING:
    from ..descriptions.deployment import Numerics
    from ..descriptions.sensitivity import Sensitivity
    from .graph import Edge

ERROR_UNIT = 10**15
WEIGHT_UNIT = 10**6  # resolution of squared sensitivity weights
SUMS = ("attn_out", "mlp_out")
MARGIN = 2.0  # standard deviations of what another text has otherwise

Vector = tuple[int, ...]


class Damage(ABC):
    """A unit. `field` is that of the budget in it."""

    field: ClassVar[str]

    @abstractmethod
    def vector(self, edge: Edge) -> Vector:
        """What an op at a sum of a layer does; as long for every op, and comparable part by part."""

    @abstractmethod
    def at(self, vector: Vector, layer: int, boundary: str) -> int:
        """The part of a vector that counts at a place."""

    @abstractmethod
    def key(self, layer: int) -> object:
        """Equal for layers at which every vector counts alike."""

    @abstractmethod
    def spelled(self, total: int) -> str:
        """A total as people read it."""

    def of(self, edge: Edge, layer: int) -> int:
        """What an op does at a layer."""
        return self.at(self.vector(edge), layer, edge.boundary) if edge.boundary in SUMS else 0

    def total(self, layers: Iterable[Iterable[Edge]]) -> int:
        """What a plan's layers do."""
        return sum(self.of(edge, index) for index, edges in enumerate(layers) for edge in edges)


@dataclass(frozen=True)
class SquaredErrors(Damage):
    """(w_b * e_b)^2: squared relative errors, by the sensitivity of their places where a file gives some."""

    weights: dict[str, tuple[float, ...]] | None = None
    field: ClassVar[str] = "error_budget"

    def vector(self, edge: Edge) -> Vector:
        """Its squared error."""
        return (edge.squared_error,)

    def at(self, vector: Vector, layer: int, boundary: str) -> int:
        """The squared error by the squared weight of the place."""
        return vector[0] * (WEIGHT_UNIT if self.weights is None else _squared(self.weights[boundary][layer]))

    def key(self, layer: int) -> object:
        """The weights of the layer."""
        return None if self.weights is None else tuple(_squared(self.weights[name][layer]) for name in SUMS)

    def spelled(self, total: int) -> str:
        """A relative error."""
        return f"error {math.sqrt(total / WEIGHT_UNIT / ERROR_UNIT):.4g}"


def _squared(weight: float) -> int:
    return round(weight * weight * WEIGHT_UNIT)


class LossEffects(Damage):
    """What sums in each wire format do to the mean loss of a token, as measured; what came out negative counts 0.

    A plan is what its effects make look cheap, and text is never the same: so a budget is spent on an effect and
    `margin` times the part of it that another text has otherwise. Those parts add up as squares; over all n sums of a
    model their root is at least the sum of the parts by the root of n, which adds up place by place.
    """

    field: ClassVar[str] = "perplexity_budget"

    def __init__(self, sensitivity: Sensitivity, margin: float = MARGIN) -> None:
        self._sensitivity = sensitivity
        self._margin = margin / math.sqrt(2 * len(sensitivity.attn_out))
        self._none = (0,) * len(sensitivity.attn_out)
        self._known: dict[tuple[Op, str], Vector] = {}

    def vector(self, edge: Edge) -> Vector:
        """Its effect at every layer."""
        found = self._known.get((edge.op, edge.boundary))
        if found is None:
            found = self._known[edge.op, edge.boundary] = self._measured(edge)
        return found

    def _measured(self, edge: Edge) -> Vector:
        effects = self._sensitivity.effects_of(edge.op) if edge.op.kind.is_quantized else None
        if effects is None:
            return self._none
        losses = getattr(effects.loss, edge.boundary)
        odd = getattr(effects.odd, edge.boundary) if effects.odd is not None else (0.0,) * len(losses)
        counted = (max(0.0, loss) + self._margin * abs(part) for loss, part in zip(losses, odd, strict=True))
        return tuple(round(each * ERROR_UNIT) for each in counted)

    def at(self, vector: Vector, layer: int, boundary: str) -> int:  # noqa: ARG002
        """The effect at the layer, with its margin."""
        return vector[layer] * WEIGHT_UNIT

    def key(self, layer: int) -> object:
        """Each layer has effects of its own."""
        return layer

    def spelled(self, total: int) -> str:
        """A rise of perplexity."""
        return f"a perplexity {rise_of(total):+.3%}, its margin included"


def rise_of(total: int) -> float:
    """The relative rise of perplexity of a total of losses."""
    return math.expm1(total / WEIGHT_UNIT / ERROR_UNIT)


def damage_of(numerics: Numerics, sensitivity: Sensitivity | None) -> Damage:
    """The unit of a deployment's budget; squared errors where it has none."""
    if numerics.perplexity_budget is not None and sensitivity is not None:
        return LossEffects(sensitivity)
    return SquaredErrors(None if sensitivity is None else sensitivity.weights())


def limit_of(numerics: Numerics) -> int | None:
    """A deployment's budget in units of 1 / ERROR_UNIT: E^2, or the loss that a rise of perplexity is."""
    if numerics.perplexity_budget is not None:
        return math.floor(math.log1p(numerics.perplexity_budget) * ERROR_UNIT)
    return squared_budget(numerics.error_budget)


def squared_budget(error_budget: float | None) -> int | None:
    """E^2 in the integer units of squared errors."""
    return None if error_budget is None else math.floor(error_budget * error_budget * ERROR_UNIT)


class Classes:
    """Vectors as sets of bits: one is no worse than another at any layer where its set is a subset.

    A vector's set are those that are no worse than it. The sets of the two sums of a layer lie side by side in one
    number, so a way through a layer has one.
    """

    def __init__(self, damage: Damage, edges: Iterable[Edge]) -> None:
        self.damage = damage
        self._sets: dict[tuple[str, Vector], int] = {}
        found: dict[str, dict[Vector, None]] = {name: {} for name in SUMS}
        for edge in edges:
            if edge.boundary in SUMS:
                found[edge.boundary].setdefault(damage.vector(edge))
        self._attn = 0
        first = 0
        for name, vectors in found.items():
            harmful = [vector for vector in vectors if any(vector)]
            bits = {vector: 1 << (first + index) for index, vector in enumerate(harmful)}
            for vector in vectors:
                below = [bit for other, bit in bits.items() if all(a <= b for a, b in zip(other, vector, strict=True))]
                self._sets[name, vector] = sum(below)
            first += len(harmful)
            if name == SUMS[0]:
                self._attn = (1 << first) - 1

    def of(self, edge: Edge) -> int:
        """The set of an op; empty where it does nothing."""
        return self._sets[edge.boundary, self.damage.vector(edge)]

    def at(self, layer: int) -> ClassesAt:
        """What sets stand for at a layer."""
        parts = [{s: self.damage.at(v, layer, name) for (b, v), s in self._sets.items() if b == name} for name in SUMS]
        return ClassesAt(self._attn, parts[0] | {0: 0}, parts[1] | {0: 0})


@dataclass(frozen=True)
class ClassesAt:
    """What the sets of ways count at one layer."""

    attn_bits: int
    attn: dict[int, int]
    mlp: dict[int, int]

    def of(self, bits: int) -> int:
        """What a way does."""
        attn = bits & self.attn_bits
        return self.attn[attn] + self.mlp[bits ^ attn]


__all__ = [
    "ERROR_UNIT",
    "SUMS",
    "WEIGHT_UNIT",
    "Classes",
    "Damage",
    "LossEffects",
    "SquaredErrors",
    "damage_of",
    "limit_of",
    "rise_of",
    "squared_budget",
]
