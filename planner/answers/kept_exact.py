"""Which sums a plan keeps exact although quantised ones may travel, and why: in the words of a sensitivity file."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from ..descriptions.sensitivity import Sensitivity
from ..descriptions.setup import Setup
from ..strategy.file.document import RangePlan
from ..strategy.ops import Op

_NAMED = 4
SUMS = ("attn_out", "mlp_out")


@dataclass(frozen=True)
class KeptExact:
    """Sums of a range: how many are quantised, and those that are not, the most sensitive first.

    kept    (layer, boundary, what the usual format would do there): a rise of perplexity, or a weight
    reason  why those are kept
    rise    predicted of perplexity, and the budget of it
    """

    quantised: int
    sums: int
    kept: tuple[tuple[int, str, float | None], ...]
    reason: str
    by_loss: bool
    rise: float | None
    budget: float | None

    def __str__(self) -> str:
        told = f"{self.quantised} of {self.sums} sums quantised"
        if self.rise is not None:
            told += f", perplexity {self.rise:+.2%} predicted"
            told += f" of {self.budget:+.2%} allowed" if self.budget is not None else ""
        if not self.kept:
            return told
        named = ", ".join(self._named(*each) for each in self.kept[:_NAMED])
        more = f" and {len(self.kept) - _NAMED} more" if len(self.kept) > _NAMED else ""
        return f"{told}; kept exact: {named}{more}: {self.reason}"

    def _named(self, layer: int, boundary: str, figure: float | None) -> str:
        if figure is None:
            return f"{layer}.{boundary}"
        return f"{layer}.{boundary} ({figure:+.2%})" if self.by_loss else f"{layer}.{boundary} (weight {figure:.2g})"


def kept_exact(setup: Setup, plan: RangePlan) -> KeptExact | None:
    """Of a range; None where no sensitivity file is given, or nothing may be quantised."""
    sensitivity, numerics = setup.sensitivity, setup.deployment.numerics
    if sensitivity is None or numerics.loosest != "quantized":
        return None
    places = [(layer, b, ops.at(b)) for layer, ops in enumerate(plan.layers) for b in SUMS]
    used = Counter(op for _, _, op in places if op.kind.is_quantized)
    usual = used.most_common(1)[0][0] if used else None
    exact = [(layer, b) for layer, b, op in places if not op.kind.is_quantized]
    kept = [(layer, b, _figure(sensitivity, usual, layer, b)) for layer, b in exact]
    kept.sort(key=lambda each: (-(each[2] or 0.0), each[0], each[1]))
    rise = None if plan.predicted is None else plan.predicted.perplexity_rise
    by_loss = bool(sensitivity.formats)
    reason = _reason(kept, usual, rise, numerics.perplexity_budget, numerics.error_budget)
    quantised = len(places) - len(kept)
    return KeptExact(quantised, len(places), tuple(kept), reason, by_loss, rise, numerics.perplexity_budget)


def _figure(sensitivity: Sensitivity, usual: Op | None, layer: int, boundary: str) -> float | None:
    """What the plan's usual format would do at a place."""
    if not sensitivity.formats:
        return sensitivity.weights()[boundary][layer]
    effects = None if usual is None else sensitivity.effects_of(usual)
    return None if effects is None else math.expm1(max(0.0, getattr(effects.loss, boundary)[layer]))


def _reason(
    kept: list[tuple[int, str, float | None]],
    usual: Op | None,
    rise: float | None,
    budget: float | None,
    error_budget: float | None,
) -> str:
    if budget is None and error_budget is None:
        return "a quantised sum is no faster there"
    if usual is None:
        return "a quantised sum is no faster there, or alone above the budget"
    if budget is None or rise is None:
        return "the error budget is spent where less is lost, or a quantised sum is no faster there"
    left = (1 + budget) / (1 + rise) - 1
    least = min((figure for _, _, figure in kept if figure is not None), default=0.0)
    if least > left:
        return f"each alone is more than the {left:+.3%} that is left"
    return "the budget is spent where it buys more, or a quantised sum is no faster there"
