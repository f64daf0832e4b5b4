"""Prices of edges and plans, as integer picoseconds: sums are exact, ties are real, no order of evaluation matters."""

from __future__ import annotations

from ..cost.op_costs import OpCosts
from .graph import Edge, Plan
from .graph_builder import GraphBuilder

_PS = 10**6  # picoseconds per microsecond
_TIME_SHIFT, _RANK_SHIFT = 40, 20  # time | numerics rank | number of ops, 20 bits for each of the last two


class Pricer:
    """Integer prices of edges and of layer-independent compute, one token count at a time."""

    def __init__(self, builder: GraphBuilder, limited: bool = True, any_size: bool = False) -> None:
        self._any_size = any_size  # for the question what a plan would be if it did fit
        self._costs: OpCosts = builder.costs
        self._memory = builder.memory
        self._impls = builder.setup.executor.impls
        limit = builder.setup.deployment.limits.activation_memory_gb
        self._limit_bytes = limit * 1e9 if limited and not any_size and limit is not None else None
        self._term_prices: dict[tuple[int, object], int] = {}
        self._edge_prices: dict[tuple[int, Edge], int] = {}

    def price_ps(self, edge: Edge, tokens: int) -> int:
        """Time of an edge at a token count, in ps."""
        key = (tokens, edge)
        price = self._edge_prices.get(key)
        if price is None:
            price = 0
            for term in edge.terms:
                term_key = (tokens, term)
                known = self._term_prices.get(term_key)
                if known is None:
                    known = round(self._costs.estimate(term, tokens).total_us * _PS)
                    self._term_prices[term_key] = known
                price += known
            self._edge_prices[key] = price
        return price

    def weight(self, edge: Edge, tokens: int) -> int:
        """Lexicographic weight: time, then numerics class, then whether it is an op at all."""
        return (self.price_ps(edge, tokens) << _TIME_SHIFT) + (edge.rank << _RANK_SHIFT) + edge.op.kind.runs

    @staticmethod
    def weight_of(ps: int) -> int:
        """The weight of a time in ps alone."""
        return ps << _TIME_SHIFT

    @staticmethod
    def ps_of(weight: int) -> int:
        """The time in a weight, or in a sum of weights."""
        return weight >> _TIME_SHIFT

    def fits(self, edge: Edge, tokens: int) -> bool:
        """False where the op would need more activation memory than the deployment allows, or its impl takes no
        message of this size."""
        largest = self._largest(edge)
        if largest is not None and self._costs.message_bytes(edge.terms, tokens) > largest:
            return False
        if self._limit_bytes is None:
            return True
        return self._peak_bytes(edge, tokens) <= self._limit_bytes

    def unfit(self, edge: Edge, tokens: int) -> str | None:
        """Why an op does not fit at a token count, or None where it does."""
        largest, message = self._largest(edge), self._costs.message_bytes(edge.terms, tokens)
        if largest is not None and message > largest:
            return f"{edge.op.impl} takes messages up to {_size(largest)}, and {tokens} tokens are {_size(message)}"
        peak = self._peak_bytes(edge, tokens)
        if self._limit_bytes is not None and peak > self._limit_bytes:
            limit = f"{self._limit_bytes / 1e9:g} GB of limits.activation_memory_gb"
            return f"holds {peak / 1e9:.3g} GB of activations at {tokens} tokens, over the {limit}"
        return None

    def _largest(self, edge: Edge) -> int | None:
        """The largest message that the impl of an op takes; None: any."""
        return None if edge.op.impl is None or self._any_size else self._impls[edge.op.impl].max_message_bytes

    def _peak_bytes(self, edge: Edge, tokens: int) -> int:
        return self._memory.peak_bytes(edge.boundary, edge.op, edge.before, edge.after, edge.shape, tokens)

    def plan_ps(self, plan: Plan, tokens: int) -> int:
        """Time of all ops of a plan at a token count, in ps."""
        return sum(count * self.price_ps(edge, tokens) for edge, count in plan.counted)


def _size(num_bytes: float) -> str:
    """`8 MiB`, or `585.5 KiB`."""
    unit, name = (2**20, "MiB") if num_bytes >= 2**20 else (2**10, "KiB")
    return f"{num_bytes / unit:,.5g} {name}"
