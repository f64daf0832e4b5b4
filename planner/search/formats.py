"""Listed wire formats that nothing sends on this machine.

A list of such formats alone is an error where others are sent: it would turn quantisation off without a word. Else what
does nothing is said: a list may be for several machines and executors, and is a permission rather than a demand.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..cost.op_costs import OpCosts
from ..descriptions.setup import Setup
from ..strategies import strategies
from ..strategy.errors import NoLegalPlanError
from ..strategy.impl_rules import RESIDUAL_OUT
from ..strategy.layout import IllegalOpError, LayerShape
from ..strategy.op_kinds import QUANTIZED_ALL_REDUCE
from ..strategy.ops import Op
from .graph import ANY
from .offers import Offers

_FIELD = "numerics.wire_formats"


def check_formats(offers: Offers) -> None:
    """Raise NoLegalPlanError where sums can be quantised here, but in no format that the deployment lists."""
    listed = _said(offers.setup)
    sent = _sent(offers) if listed else {}
    if not sent or any(wire in sent for wire in listed):
        return
    told = "; ".join(f"{wire}: {why}" for wire, why in _unsent(offers).items())
    way = f"list one that is sent here ({', '.join(sent)}), or leave the field out"
    raise NoLegalPlanError(f"no sum travels in what it lists ({told}); {way}", field=_FIELD, value=list(listed))


def warnings(setup: Setup) -> list[str]:
    """What of the list does nothing here, a sentence each, without a full stop."""
    numerics = setup.deployment.numerics
    if numerics.loosest == "quantized" and not numerics.wire_formats:
        return [f"no sum may travel in fewer bits: {_FIELD} is empty, although numerics.loosest is quantized"]
    if not _said(setup):
        return []
    mode = next(iter(setup.deployment.modes))
    unsent = _unsent(Offers(setup, OpCosts(setup, mode), mode))
    return [f"no sum travels in {wire}, which {_FIELD} lists: {why}" for wire, why in unsent.items()]


def _said(setup: Setup) -> tuple[str, ...]:
    """The formats that a deployment lists by itself, and that mean something in it."""
    numerics = setup.deployment.numerics
    means = numerics.loosest == "quantized" and setup.parallelism.tp > 1
    return numerics.wire_formats if means and "wire_formats" in numerics.model_fields_set else ()


def _unsent(offers: Offers) -> dict[str, str]:
    """Listed formats that nothing sends here, and why."""
    sent, refused, can = _sent(offers), dict(_refused(offers)), offers.setup.executor.can
    none = can.cannot_run(QUANTIZED_ALL_REDUCE.name)
    return {wire: refused.get(wire, none) for wire in dict.fromkeys(_said(offers.setup)) if wire not in sent}


def _sent(offers: Offers) -> dict[str, None]:
    """The formats in which some impl can send a sum here."""
    return {op.wire.name: None for op, why in _candidates(offers) if op.wire is not None and why is None}


def _refused(offers: Offers) -> Iterator[tuple[str, str]]:
    yield from ((op.wire.name, why) for op, why in _candidates(offers) if op.wire is not None and why is not None)


def _candidates(offers: Offers) -> Iterator[tuple[Op, str | None]]:
    """Offered sums by their impls, with the reason why these cannot perform them over any group of the deployment."""
    for boundary in RESIDUAL_OUT:
        for op, why in offers.candidates(boundary, tuple(strategies().values()), ANY):
            yield op, why or _unable(offers, boundary, op)


def _unable(offers: Offers, boundary: str, op: Op) -> str | None:
    why = None
    for group in ("tp", "attn_tp"):
        try:
            offers.check_impl(boundary, op, group, LayerShape())
        except IllegalOpError as reason:
            why = str(reason)
        else:
            return None
    return why
