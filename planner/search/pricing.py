"""Prices of edges, steps and plans, as integer picoseconds: sums are exact, ties are real, no order matters.

A forward is cut into *segments*: embed_out, each layer, and head_in with the head. The host launches a segment's
kernels while the device runs those before, so a segment takes the longer of what the two need for it; the head's few
are launched by the time the last layer is done, so there the device counts. Prices leave out
what the device needs in any case (`fixed`): a segment's price is how much longer than that it takes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from copy import copy
from typing import Literal, NamedTuple

from ..cost.host import HostCosts, LayerKind
from ..cost.layers import LayerCosts
from ..cost.op_costs import OpCosts
from ..cost.terms import Term
from .graph import Edge, LayerGraph, Plan
from .graph_builder import GraphBuilder

PS = 10**6  # picoseconds per microsecond
_TIME_SHIFT, _RANK_SHIFT = 40, 20  # time | numerics rank | number of ops, 20 bits for each of the last two


class Segment(NamedTuple):
    """How far the host is behind before any op of a segment: what it launches there in any case, less what the device
    runs there in any case. None: the host costs nothing."""

    behind_ps: int | None

    def ps(self, device: int, host: int) -> int:
        """Price of ops that the device and the host need so long for."""
        return device if self.behind_ps is None else max(device, host + self.behind_ps)

    def weight(self, device: int, host: int) -> int:
        """The same of weights; both hold the same rank and number of ops."""
        return device if self.behind_ps is None else max(device, host + (self.behind_ps << _TIME_SHIFT))


_FREE = Segment(None)


class _Facts(NamedTuple):
    """What of an edge does not depend on the token count.

    terms    each with a number that equal ones share, which is quicker to look up than a term
    ties     the part of its weights that is no time: numerics class, whether it is an op at all
    largest  message that its impl takes; None: any
    """

    terms: tuple[tuple[int, Term], ...]
    ties: int
    largest: float | None


Weights = tuple[Edge, int, int]  # an edge, its weights on device and host


class Pricer:
    """Integer prices of edges and segments, one token count at a time."""

    def __init__(self, builder: GraphBuilder, limited: bool = True, any_size: bool = False) -> None:
        self._any_size = any_size  # for the question what a plan would be if it did fit
        self._costs: OpCosts = builder.costs
        self._memory = builder.memory
        self._setup = builder.setup
        self._impls = builder.setup.executor.impls
        limit = builder.setup.deployment.limits.activation_memory_gb
        self._limit_bytes = limit * 1e9 if limited and not any_size and limit is not None else None
        self.host = HostCosts(builder.setup, builder.mode)
        self._fixed = LayerCosts(builder.setup, builder.costs)
        model = builder.setup.model
        self.kinds = [(model.attention_kind(i), model.mlp_kind(i)) for i in range(model.num_hidden_layers)]
        self._numbers: dict[Term, int] = {}
        self._facts: dict[Edge, _Facts] = {}
        self._term_prices: defaultdict[int, dict[int, int]] = defaultdict(dict)  # by token count
        self._edge_prices: defaultdict[int, dict[Edge, int]] = defaultdict(dict)
        self._host_prices: defaultdict[bool, dict[Edge, int]] = defaultdict(dict)  # by whether nothing is padded
        self._tp = builder.setup.parallelism.tp
        self._side: Literal["device", "host"] | None = None  # the only one that counts
        self._segments: dict[tuple[int, LayerKind | str], Segment] = {}
        self._kind_counts: dict[tuple[int, ...], tuple[tuple[LayerKind, int], ...]] = {}

    # ---- edges ------------------------------------------------------------------------------------------------------

    def price_ps(self, edge: Edge, tokens: int) -> int:
        """Time of an edge on the device at a token count, in ps."""
        price = self._edge_prices[tokens].get(edge)
        return self._new_price(edge, tokens) if price is None else price

    def _new_price(self, edge: Edge, tokens: int) -> int:
        price, prices = 0, self._term_prices[tokens]
        for number, term in self._facts_of(edge).terms:
            known = prices.get(number)
            if known is None:
                known = prices[number] = round(self._costs.estimate(term, tokens).total_us * PS)
            price += known
        self._edge_prices[tokens][edge] = price
        return price

    def _facts_of(self, edge: Edge) -> _Facts:
        found = self._facts.get(edge)
        if found is None:
            numbers = self._numbers
            terms = tuple((numbers.setdefault(term, len(numbers)), term) for term in edge.terms)
            largest = None if self._any_size else self._costs.most_bytes(edge.op, edge.terms)
            ties = (edge.rank << _RANK_SHIFT) + edge.op.kind.runs
            found = self._facts[edge] = _Facts(terms, ties, largest)
        return found

    def host_ps(self, edge: Edge, tokens: int) -> int:
        """Time of an edge on the host at a token count, in ps; 0 where the host costs nothing."""
        if not self.host.counts(tokens):
            return 0
        prices = self._host_prices[tokens % self._tp == 0]  # a launch takes as long for any rows, and none for none
        price = prices.get(edge)
        if price is None:
            run = [term for term in edge.terms if self._costs.rows(term.rows, tokens)]
            price = prices[edge] = sum(round(self.host.term_us(term) * PS) for term in run)
        return price

    def weights(self, edges: Iterable[Edge], tokens: int) -> Iterator[Weights]:
        """The edges that fit at a token count, with their lexicographic weights on the device and on the host: time,
        then numerics class, then whether it is an op at all."""
        known, prices = self._facts, self._edge_prices[tokens]
        counts, by_host = self.host.counts(tokens), self._side == "host"
        for edge in edges:
            facts = known.get(edge) or self._facts_of(edge)
            limited = facts.largest is not None or self._limit_bytes is not None
            if limited and not self.fits(edge, tokens):
                continue
            ties = facts.ties
            host = (self.host_ps(edge, tokens) << _TIME_SHIFT) + ties if counts else ties
            if by_host:
                yield edge, host, host
                continue
            price = prices.get(edge)
            if price is None:
                price = self._new_price(edge, tokens)
            yield edge, (price << _TIME_SHIFT) + ties, host

    def weight(self, edge: Edge, tokens: int) -> int:
        """The weight of one edge on the device, whether it fits or not."""
        if self._side == "host":
            return self.host_weight(edge, tokens)
        return (self.price_ps(edge, tokens) << _TIME_SHIFT) + self._facts_of(edge).ties

    def host_weight(self, edge: Edge, tokens: int) -> int:
        """The same on the host."""
        return (self.host_ps(edge, tokens) << _TIME_SHIFT) + self._facts_of(edge).ties

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
        largest = self._facts_of(edge).largest
        if largest is not None and self._costs.message_bytes(edge.terms, tokens) > largest:
            return False
        if self._limit_bytes is None:
            return True
        return self._peak_bytes(edge, tokens) <= self._limit_bytes

    def unfit(self, edge: Edge, tokens: int) -> str | None:
        """Why an op does not fit at a token count, or None where it does."""
        largest, message = self._facts_of(edge).largest, self._costs.message_bytes(edge.terms, tokens)
        if largest is not None and message > largest:
            who = edge.op.impl if edge.op.algorithm is None else f"{edge.op.algorithm} of {edge.op.impl}"
            return f"{who} takes messages up to {_size(largest)}, and {tokens} tokens are {_size(message)}"
        peak = self._peak_bytes(edge, tokens)
        if self._limit_bytes is not None and peak > self._limit_bytes:
            limit = f"{self._limit_bytes / 1e9:g} GB of limits.activation_memory_gb"
            return f"holds {peak / 1e9:.3g} GB of activations at {tokens} tokens, over the {limit}"
        return None

    def _peak_bytes(self, edge: Edge, tokens: int) -> int:
        return self._memory.peak_bytes(edge.boundary, edge.op, edge.before, edge.after, edge.shape, tokens)

    # ---- segments ---------------------------------------------------------------------------------------------------

    def one_sided(self) -> tuple[Pricer, Pricer]:
        """Pricers by which only the device counts, or only the host."""
        sides = copy(self), copy(self)
        sides[0]._side, sides[1]._side = "device", "host"
        return sides

    def segment(self, of: LayerGraph | str, tokens: int) -> Segment:
        """The segment of a layer, of embed_out or of head_in."""
        if self._side is not None:
            return _FREE
        return self._segment(of if isinstance(of, str) else (of.attention_kind, of.mlp_kind), tokens)

    def _segment(self, of: LayerKind | str, tokens: int) -> Segment:
        if of == "head_in" or not self.host.counts(tokens):
            return _FREE
        key = (tokens, of)
        found = self._segments.get(key)
        if found is None:
            found = self._segments[key] = Segment(self._behind_ps(of, tokens))
        return found

    def _behind_ps(self, of: LayerKind | str, tokens: int) -> int:
        if of == "embed_out":
            return round(self.host.embed_us * PS)
        assert not isinstance(of, str)
        work = self._costs.work(tokens)
        host, device = self.host.layer_us(of), [*self._fixed.attention(of[0], work), *self._fixed.mlp(of[1], work)]
        factor = self._costs.compute_factor(tokens)
        return round(host * PS) - round(sum(e.scaled(factor).total_us for e in device) * PS)

    # ---- plans ------------------------------------------------------------------------------------------------------

    def plan_ps(self, plan: Plan, tokens: int) -> int:
        """Price of a plan at a token count, in ps."""
        if not self.host.counts(tokens):
            return self.device_ps(plan, tokens)
        total = 0
        for of, edge in (("embed_out", plan.embed_out), ("head_in", plan.head_in)):
            total += self._segment(of, tokens).ps(self.price_ps(edge, tokens), self.host_ps(edge, tokens))
        for edges, layers in plan.steps:
            device = sum(self.price_ps(edge, tokens) for edge in edges)
            host = sum(self.host_ps(edge, tokens) for edge in edges)
            for kind, count in self._kinds_of(layers):
                total += count * self._segment(kind, tokens).ps(device, host)
        return total

    def device_ps(self, plan: Plan, tokens: int) -> int:
        """The part of it that the device works."""
        return sum(count * self.price_ps(edge, tokens) for edge, count in plan.counted)

    def _kinds_of(self, layers: tuple[int, ...]) -> tuple[tuple[LayerKind, int], ...]:
        found = self._kind_counts.get(layers)
        if found is None:
            found = self._kind_counts[layers] = tuple(Counter(self.kinds[i] for i in layers).items())
        return found


def _size(num_bytes: float) -> str:
    """`8 MiB`, or `585.5 KiB`."""
    unit, name = (2**20, "MiB") if num_bytes >= 2**20 else (2**10, "KiB")
    return f"{num_bytes / unit:,.5g} {name}"
