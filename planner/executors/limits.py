"""Limits of messages that a server sets by compute capability and by ranks, settled for one machine and its ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ..strategy.executor_file import Impl

if TYPE_CHECKING:
    from .stock import Sized, Stock

CAPABILITY = r"^[1-9][0-9]*\.[0-9]$"
Bytes = Annotated[int, Field(gt=0, strict=True)]
Ranks = Annotated[int, Field(ge=2)]  # a key of YAML, which is text
ByCapability = dict[Annotated[str, Field(pattern=CAPABILITY)], dict[Ranks, Bytes | None]]


def settled_impl(name: str, impl: Impl, capability: str | None, ranks: int) -> Impl:
    """An impl with the limit that it has here; one that has none runs here for nobody, and says so."""
    if impl.max_message_bytes_by is None:
        return impl
    limits = impl.max_message_bytes_by.get(capability or "", {})
    if ranks in limits:
        return replace(impl, max_message_bytes=limits[ranks])
    where = f"compute capability {capability}" if not limits else f"{ranks} ranks of compute capability {capability}"
    return replace(impl, stock_only=f"it has no limit of {name} for {where}, and so never runs it there")


def settled_stock(stock: Stock, impls: dict[str, Impl], capability: str | None, ranks: int) -> Stock:
    """The rules of a server as they are here: those that take nothing are left out. `impls` are settled."""
    sums, fusions = (_settled(rules, impls, capability or "", ranks) for rules in (stock.sums, stock.fusions))
    return stock.model_copy(update={"sums": sums, "fusions": fusions})


def _settled(rules: Sequence[Sized], impls: dict[str, Impl], capability: str, ranks: int) -> tuple[Sized, ...]:
    found = []
    for rule in rules:
        impl = impls[rule.impl]
        tables = [by for by in (impl.max_message_bytes_by, rule.max_message_bytes_by) if by is not None]
        if any(ranks not in by.get(capability, {}) for by in tables):
            continue
        most = impl.max_message_bytes if rule.max_message_bytes is None else rule.max_message_bytes
        if rule.max_message_bytes_by is not None:
            most = rule.max_message_bytes_by[capability][ranks]
        found.append(rule.model_copy(update={"max_message_bytes": most}))
    return tuple(found)
