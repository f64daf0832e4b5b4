"""One file per strategy: the ops it would put at each boundary. A new one is a new file; they do not know each other.

A strategy offers more than it will use: the layout algebra and the executor decide what is legal where it is offered,
the search decides what is cheapest. The optimum searches what all strategies offer together; a uniform strategy is the
cheapest legal plan made of its own offers alone.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from ..strategy.layout import Parallelism
from ..strategy.ops import Op
from ..strategy.wire import Wire
from ..strategy.words import ScaleGroup

PLAIN = "all_reduce"
"""The strategy that all others are held against: what a forward does that nobody planned."""


@dataclass(frozen=True, slots=True)
class Offer:
    """An op that a strategy would use; `peer_to_peer` asks for a fused kernel rather than a library collective."""

    op: Op
    peer_to_peer: bool = False


@dataclass(frozen=True)
class Strategy:
    """A named set of offers by boundary.

    `needs(parallelism)` returns why the strategy has no place in a deployment, or None.
    """

    name: str
    summary: str
    colour: str  # in every chart
    offers: Mapping[str, tuple[Offer, ...]]

    @property
    def quantizes(self) -> bool:
        """True if it is there for sums that lose information."""
        return any(offer.op.kind.is_quantized for given in self.offers.values() for offer in given)

    def needs(self, parallelism: Parallelism) -> str | None:
        """Why the strategy has no place under this parallelism, or None."""
        return None if parallelism.tp > 1 else "tp is 1: nothing travels between devices"


def offers(**by_boundary: tuple[Op | Offer, ...]) -> dict[str, tuple[Offer, ...]]:
    """Offers by boundary, with bare ops allowed."""
    return {
        boundary: tuple(o if isinstance(o, Offer) else Offer(o) for o in given)
        for boundary, given in by_boundary.items()
    }


@cache
def strategies() -> dict[str, Strategy]:
    """All strategies of this folder by name, plain all-reduce first."""
    found = [importlib.import_module(f".{module.name}", __name__).STRATEGY for module in pkgutil.iter_modules(__path__)]
    return {s.name: s for s in sorted(found, key=lambda s: (s.name != PLAIN, s.name))}


@cache
def offered_sums() -> tuple[tuple[Op, Wire], ...]:
    """The sums in a wire format that some strategy offers somewhere."""
    ops = [offer.op for s in strategies().values() for given in s.offers.values() for offer in given]
    return tuple((op, op.wire) for op in dict.fromkeys(ops) if op.wire is not None)


@cache
def offered_formats() -> tuple[tuple[str, ScaleGroup], ...]:
    """Their formats, with the columns of a scale; by whole rows first."""
    found = {(wire.name, op.scale_group or "token") for op, wire in offered_sums()}
    return tuple(sorted(found, key=lambda each: (each[0], 0 if each[1] == "token" else int(each[1]))))
