"""Which times of a plan, or of the server that it is held against, lie beyond the ends of their tables."""

from __future__ import annotations

from ..cost.terms import COMMUNICATION
from ..search.graph import Plan
from ..search.planning import ModePlanner
from .breakdown import is_extrapolated


def beyond_tables(planner: ModePlanner, plan: Plan, tokens: int) -> set[str]:
    """The collectives whose times at a token count a table gives beyond its ends, each with its impl."""
    backend = planner.setup.hardware.backend
    return {
        f"{edge.op.name} by {edge.op.impl or backend}"
        for edge, _ in plan.counted
        for term in edge.terms
        if isinstance(term.work, COMMUNICATION) and is_extrapolated(planner.costs.estimate(term, tokens).source)
    }
