"""Why no op may stand at a place: for the error of a deployment that has no plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..descriptions.deployment import OpRule
from ..strategies import strategies
from ..strategy.layout import State
from ..strategy.op_kinds import KINDS
from .graph import ANY, Rejection, Restriction

if TYPE_CHECKING:
    from .graph_builder import GraphBuilder


def why_nothing(
    builder: GraphBuilder, restriction: Restriction, layer: int | None, boundary: str, states: set[State | None]
) -> tuple[str | None, str]:
    """(field, text): what keeps every offered op from a place. A pinned op's own reason comes first."""
    ordered = sorted(states, key=str)
    found = [r for state in ordered for r in builder.rejections(boundary, layer, state, restriction.strategies)]
    for index, rule in enumerate(builder.setup.deployment.numerics.pin):
        if rule.covers(builder.mode, boundary, layer):
            by = "" if rule.impl is None else f" by {rule.impl}"
            why = _why_not_pinned(builder, rule, found, layer, boundary, ordered)
            return f"numerics.pin[{index}]", f"{rule.op}{by}: {why}"
    reasons = _reasons(found)
    told = [f"{op}: {why}" for op, why in reasons.items() if KINDS[op].is_collective]
    return None, "; ".join(told or [f"{op}: {why}" for op, why in reasons.items()])


def _why_not_pinned(
    builder: GraphBuilder,
    rule: OpRule,
    found: list[Rejection],
    layer: int | None,
    boundary: str,
    states: list[State | None],
) -> str:
    """What keeps a pinned op from its place, by the impl that the rule names where it names one."""
    hardware = builder.setup.hardware
    offered = builder.offers.candidates(boundary, tuple(strategies().values()), ANY)
    meant = [op for op, why in offered if why is None and rule.means(op, hardware.backend)]
    if any(builder.lacks_table_alone(boundary, layer, state, op) for op in meant for state in states):
        return f"no calibration of {hardware.name} has a table of it: run commplan calibrate"
    reasons = _reasons([rejection for rejection in found if rule.means(rejection.op, hardware.backend)])
    return reasons.get(rule.op) or _reasons(found).get(rule.op, "no strategy offers it here")


def _reasons(found: list[Rejection]) -> dict[str, str]:
    """Why ops may not stand somewhere, by name: a policy can be changed, a layout cannot."""
    reasons: dict[str, str] = {}
    for rejection in found:
        if rejection.op.name not in reasons or rejection.by_policy:
            reasons[rejection.op.name] = rejection.reason
    return reasons
