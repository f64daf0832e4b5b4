"""Which times of a plan, or of the server that it is held against, lie beyond the ends of their tables."""

from __future__ import annotations

from collections.abc import Iterator

from ..cost.terms import COMMUNICATION
from ..search.graph import Plan
from ..search.planning import ModePlanner
from .breakdown import is_extrapolated


def beyond_tables(planner: ModePlanner, plan: Plan, tokens: int) -> Iterator[str]:
    """The collectives whose times at a token count a table gives beyond its ends, each with its impl, once."""
    backend = planner.setup.hardware.backend
    told = set()
    for edge, _ in plan.counted:
        for term in edge.terms:
            if isinstance(term.work, COMMUNICATION) and is_extrapolated(planner.costs.estimate(term, tokens).source):
                named = f"{edge.op.name} by {edge.op.impl or backend}"
                if named not in told:
                    told.add(named)
                    yield named
