"""How far a plan's gain over the stock server can be trusted, as one object."""

from __future__ import annotations

from ..search.graph import Plan
from ..search.planning import ModePlanner
from ..search.stock import StockPlanner
from .trust import Trust, shares_of, trust_of


def trust_over_stock(
    planner: ModePlanner, stock: StockPlanner, plan: Plan, tokens: int, fits: bool | None = None
) -> Trust:
    """Over the stock server; a flag's hidden overlap has no part in it.

    fits  whether the devices have the memory, where known
    """
    step = stock.default(tokens, plan)
    against = shares_of(stock.server, step.plan, tokens, step.step_us)
    return trust_of(planner, plan, tokens, over="the stock server", against=against, fits=fits)


def trust_json(trust: Trust) -> dict[str, object]:
    """The object under the key `trust` of a range."""
    gain, nearest = trust.gain, trust.nearest
    return {
        "gain": {"over": gain.over, "value": gain.value, "low": gain.low, "high": gain.high},
        "nearest": {
            "id": nearest.id,
            "quantity": nearest.quantity,
            "unit": nearest.unit,
            "error": nearest.error,
            "verdict": nearest.verdict,
            "machine": nearest.machine,
            "ranks": nearest.ranks,
            "ops": list(nearest.ops),
            "message_bytes": nearest.message_bytes,
            "differs": trust.nearness,
        },
        "fits": trust.fits,
        "assumed": list(trust.assumed),
    }
