"""A range's decisions in a few words."""

from __future__ import annotations

from collections import Counter

from ..strategy.file import LayerOps, RangePlan
from ..strategy.layout import LAYER_BOUNDARIES


def layer_summary(plan: RangePlan) -> str:
    """The ops of most layers, and how many layers differ."""
    spelled = Counter(_ops(layer) for layer in plan.layers)
    (text, count), *others = spelled.most_common()
    if not others:
        return text
    rest = len(plan.layers) - count
    return f"{text} ({rest} {'layer differs' if rest == 1 else 'layers differ'})"


def _ops(layer: LayerOps) -> str:
    parts = []
    for boundary in LAYER_BOUNDARIES:
        op = layer.at(boundary)
        if not op.kind.runs:
            continue
        pieces = f"{op.pieces} pieces" if op.pieces else None
        details = [x for x in (op.wire_name, op.scale_group, op.algorithm, pieces, op.group, op.residual, op.impl) if x]
        parts.append(f"{boundary} {op.name}" + (f"({', '.join(details)})" if details else ""))
    return " · ".join(parts) or "nothing travels"
