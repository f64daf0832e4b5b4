"""Measuring sensitivity: by layer, boundary and wire format what a quantised sum loses, and what that does.

The effect on the loss is measured by perturbation: one boundary at a time is quantised, from its layer to the end of
the forward. It is taken twice, with the error that the format makes and with that error's sign turned, and the mean
counts: what is odd in the error cancels. That part is of the text (at a trained model it is zero on average over texts,
since a shrunken sum is a direction of the weights), and on a few thousand tokens it can be larger than what stays. No
curvature is assumed: formats do not lose as their error's square, outliers decide. Effects of boundaries add up.

Cost: of L layers, F formats: 2 * 2 * F * L forwards of half the model on average, and no memory but one stream.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from commplan.planner.strategy.file import Op

from ..errors import RefusedError
from .emulated_ranks import Sum
from .losses import Losses
from .wires import quantised_sum

BOUNDARIES = ("attn_out", "mlp_out")


@dataclass(frozen=True)
class Effect:
    """What a quantised sum does at one place.

    error  relative RMS error of the sum
    loss   what the mean loss of a token rises by, in nats: the part that is even in the error
    odd    the part that is odd in it, which another text has otherwise
    """

    error: float
    loss: float
    odd: float


@dataclass(frozen=True)
class PlaceResult:
    """One layer and boundary: the outlier ratio of the rows that travel (largest over RMS, mean over rows and ranks),
    that of the worst row, and effects in the order of the ops."""

    outliers: float
    worst_outliers: float
    effects: tuple[Effect, ...]


Known = dict[tuple[int, str], PlaceResult]


def measure(
    losses: Losses, ops: tuple[Op, ...], known: Known, exact: float | None = None
) -> Iterator[tuple[tuple[int, str], PlaceResult]]:
    """Every place that is not `known`, in the order of the forward."""
    exact = exact_loss(losses) if exact is None else exact
    for layer in range(len(losses.layers)):
        places = [(layer, boundary) for boundary in BOUNDARIES if (layer, boundary) not in known]
        if not places:
            continue
        losses.begin_at(layer)
        seen = {(layer, boundary): _Seen(ops) for boundary in BOUNDARIES}  # both, known or not: the same bits again
        losses.with_sums({place: each.look for place, each in seen.items()})
        for place in places:
            yield place, _measured(losses, place, seen[place], ops, exact)


def exact_loss(losses: Losses) -> float:
    """The mean loss of a token where every sum is exact; RefusedError unless it is a number."""
    loss = losses.with_sums({})
    if not math.isfinite(loss):
        raise RefusedError(
            "the model's own loss on this text is not a number; what can be told apart then?",
            field="loss",
            value=str(loss),
        )
    return loss


def _measured(losses: Losses, place: tuple[int, str], seen: _Seen, ops: tuple[Op, ...], exact: float) -> PlaceResult:
    effects = []
    for op, error in zip(ops, seen.errors(), strict=True):
        forth, back = (losses.with_sums({place: perturbed(op, sign)}) - exact for sign in (1.0, -1.0))
        if not (math.isfinite(forth) and math.isfinite(back)):
            where = f"layers.{place[0]}.{place[1]}"
            raise RefusedError(f"the loss is not a number with {op} there", field=where)
        effects.append(Effect(error, (forth + back) / 2, (forth - back) / 2))
    return PlaceResult(seen.outliers(), seen.worst, tuple(effects))


def perturbed(op: Op, sign: float = 1.0) -> Sum:
    """A quantised sum, or one whose error has the other sign."""

    def sum_(partials_NTH: Tensor) -> Tensor:
        found = quantised_sum(partials_NTH, op)
        return found if sign > 0 else (2 * exact_sum(partials_NTH) - found.float()).to(found.dtype)

    return sum_


def exact_sum(partials_NTH: Tensor) -> Tensor:
    """The sum in fp32."""
    return partials_NTH.float().sum(0)


class _Seen:
    """A sum that is exact, and takes note of the rows that would travel and of what each op would lose."""

    def __init__(self, ops: tuple[Op, ...]) -> None:
        self.ops = ops
        self.worst = 0.0
        self._ratios, self._rows, self._exact = 0.0, 0, 0.0
        self._lost = [0.0] * len(ops)

    def look(self, partials_NTH: Tensor) -> Tensor:
        rows = partials_NTH.float()
        ratio = rows.abs().amax(-1) / rows.square().mean(-1).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
        self.worst = max(self.worst, ratio.max().item())
        self._ratios += ratio.double().sum().item()
        self._rows += ratio.numel()
        exact = exact_sum(partials_NTH)
        self._exact += exact.double().square().sum().item()
        for index, op in enumerate(self.ops):
            lost = quantised_sum(partials_NTH, op).float() - exact
            self._lost[index] += lost.double().square().sum().item()
        return exact.to(partials_NTH.dtype)

    def outliers(self) -> float:
        return self._ratios / max(1, self._rows)

    def errors(self) -> list[float]:
        return [math.sqrt(lost / self._exact) if self._exact else 0.0 for lost in self._lost]
