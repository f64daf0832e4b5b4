"""What is known of the impls that a plan names: those that nobody has run on a device, or not in this version."""

from __future__ import annotations

from ..strategy.executor_file import Impl
from ..strategy.file import StrategyFile
from ..strategy.layout import LAYER_BOUNDARIES
from ..strategy.ops import Op


def unverified(strategy: StrategyFile, impls: dict[str, Impl]) -> tuple[str, ...]:
    """A note for each impl of the plan whose executor's file has a `status`; ops that name none are the library's."""
    named = {op.impl or strategy.hardware.backend for op in _ops(strategy) if op.kind.runs}
    return tuple(f"{name}: {impl.status}" for name, impl in impls.items() if name in named and impl.status is not None)


def _ops(strategy: StrategyFile) -> set[Op]:
    found = set()
    for planned in (planned for ranges in strategy.modes.values() for planned in ranges):
        found |= {planned.embed_out, planned.head_in}
        found |= {getattr(layer, boundary) for layer in planned.layers for boundary in LAYER_BOUNDARIES}
    return found
