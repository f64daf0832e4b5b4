"""Planning: from a Setup to the chosen ranges of every mode, with what else could have been done."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from ..cost.estimate import Estimate
from ..cost.layers import LayerCosts
from ..cost.op_costs import OpCosts
from ..descriptions.setup import Setup
from ..strategies import PLAIN, strategies
from ..strategy.errors import NoLegalPlanError
from .cheapest_plan import Found, cheapest_plan, search
from .damage import WEIGHT_UNIT, LossEffects, limit_of, rise_of
from .error_budget import Near
from .graph import ANY, ForwardGraph, Plan, Restriction, without_impls
from .graph_builder import GraphBuilder
from .measured_steps import between, compute_factors
from .pricing import Pricer
from .ranges import PlannedRange, RangeSearch

_PS = 10**6
_SEARCH_SHARE = 0.1  # of the loss that a range may have, what the search under an error budget may leave


@dataclass(frozen=True)
class Uniform:
    """The cheapest legal plan of one strategy at a token count, or why there is none."""

    strategy: str
    plan: Plan | None
    step_us: float | None
    reason: str | None


@dataclass
class ModePlanner:
    """Everything about one forward mode of a setup. Built once, asked often."""

    setup: Setup
    mode: str
    builder: GraphBuilder = field(init=False)
    pricer: Pricer = field(init=False)
    _graphs: dict[Restriction, ForwardGraph] = field(default_factory=dict)
    _nowhere: dict[Restriction, NoLegalPlanError] = field(default_factory=dict)  # at any token count
    _fixed: dict[int, int] = field(default_factory=dict)
    _library: ForwardGraph | None = None
    _factors: dict[int, float] | None = None

    def __post_init__(self) -> None:
        costs = OpCosts(self.setup, self.mode)
        self.builder = GraphBuilder(self.setup, self.mode, costs)
        costs.compute_factor = self.compute_factor
        self.pricer = Pricer(self.builder)
        self._layer_costs = LayerCosts(self.setup, costs)

    @property
    def costs(self) -> OpCosts:
        """Prices of ops in this mode."""
        return self.builder.costs

    @cached_property
    def budget(self) -> int | None:
        """The error or perplexity budget in integer units."""
        return limit_of(self.setup.deployment.numerics)

    def over_budget(self, plan: Plan) -> str:
        """What a plan's quantised sums add up to where that is above the budget, in words; else empty."""
        if self.budget is None:
            return ""
        damage = self.graph().damage
        total = damage.total(plan.layers)
        return damage.spelled(total) if total > self.budget * WEIGHT_UNIT else ""

    def perplexity_rise(self, plan: Plan) -> float | None:
        """The relative rise of perplexity that effects measured on the model add up to; None where some are unknown."""
        sensitivity = self.setup.sensitivity
        if sensitivity is None or not sensitivity.formats:
            return None
        sums = [edge for edge, _ in plan.counted if edge.op.kind.is_quantized]
        if any(sensitivity.effects_of(edge.op) is None for edge in sums):
            return None
        return rise_of(LossEffects(sensitivity, margin=0.0).total(plan.layers))

    def graph(self, restriction: Restriction = ANY) -> ForwardGraph:
        """The graph of the mode under a restriction; raises NoLegalPlanError where it leads nowhere."""
        if restriction in self._nowhere:
            raise self._nowhere[restriction].with_traceback(None)
        if restriction not in self._graphs:
            try:
                self._graphs[restriction] = self.builder.build(restriction)
            except NoLegalPlanError as error:
                self._nowhere[restriction] = error
                raise
        return self._graphs[restriction]

    def best(self, tokens: int, restriction: Restriction = ANY) -> Plan:
        """The cheapest legal plan at a token count."""
        budget = self.budget if restriction.policy else None
        return cheapest_plan(self.graph(restriction), self.pricer, tokens, budget)

    def ranges(self) -> list[PlannedRange]:
        """The plan of every token count of the deployment's span, as few ranges."""
        graph = self.graph()
        kinks: set[int] = set()
        limits: set[int] = set()
        for term in dict.fromkeys(term for edge in graph.edges for term in edge.terms):
            kinks |= self.costs.kinks(term)
            limits |= self.costs.limits(term)
        kinks |= set(self.setup.deployment.modes[self.mode].measured_step_us or ())
        limits.add(self.pricer.host.graph_up_to)  # from there on the host counts
        tolerance = self.setup.deployment.search.range_tolerance
        near: Near | None = None

        def find(tokens: int) -> Found:
            nonlocal near
            slack_ps = int(tolerance * _SEARCH_SHARE * self.fixed_ps(tokens))
            found = search(graph, self.pricer, tokens, self.budget, slack_ps, near)
            near = found.near
            return found._replace(plan=self._in_a_row(graph, found.plan, tokens, slack_ps))

        single = self.setup.deployment.numerics.batch_invariant
        ranges = RangeSearch(graph, self.pricer, find, self.fixed_ps, tolerance, limits, single)
        first, last = self.setup.deployment.modes[self.mode].tokens
        try:
            return ranges.ranges(first, last, kinks)
        except NoLegalPlanError as error:
            raise self._with_largest(error, first, last) from None

    def _in_a_row(self, graph: ForwardGraph, plan: Plan, tokens: int, slack_ps: int) -> Plan:
        """The plan, or where its layers alternate the best one of those that are best for device or host alone, and of
        those that quantise all sums: what saves most on the device and launches most lies beyond either.

        Where a layer's two sides are about as long, alternating ops fill the slack of one layer with the excess of the
        next. A host that runs ahead over many layers has done that already: such a plan wins in the model alone. Under
        an error budget layers differ anyway.
        """
        if not self.pricer.host.counts(tokens) or self.budget is not None or not _alternates(graph, plan):
            return plan
        found = [search(graph, side, tokens, self.budget, slack_ps).plan for side in self.pricer.one_sided()]
        for name in (s.name for s in strategies().values() if s.quantizes):
            with suppress(NoLegalPlanError):  # not every strategy has a place here
                of_one = self.best(tokens, Restriction(strategies=(name,)))
                found += [] if _alternates(graph, of_one) else [of_one]
        return min(found, key=lambda each: self.pricer.plan_ps(each, tokens))

    def alone(self, tokens: int) -> Plan:
        """What a count gets that shares no range: the cheapest plan, or where its layers alternate the next best."""
        return self._in_a_row(self.graph(), self.best(tokens), tokens, 0)

    def _with_largest(self, error: NoLegalPlanError, first: int, last: int) -> NoLegalPlanError:
        """Where activation memory is the limit, the error with the largest token count that keeps within it."""
        if error.field != "limits.activation_memory_gb" or not self._fits(first):
            return error
        while last - first > 1:  # memory grows with the tokens
            middle = (first + last) // 2
            first, last = (middle, last) if self._fits(middle) else (first, middle)
        message = f"{error.message}; {first} is the largest count that does, so end modes.{self.mode}.tokens there"
        return NoLegalPlanError(message, field=error.field, value=error.value)

    def _fits(self, tokens: int) -> bool:
        try:
            self.best(tokens)
        except NoLegalPlanError:
            return False
        return True

    def fixed_ps(self, tokens: int) -> int:
        """Compute of a step that no choice changes, in ps."""
        known = self._fixed.get(tokens)
        if known is None:
            known = self._fixed[tokens] = round(sum(e.total_us for e in self.fixed(tokens)) * _PS)
        return known

    def fixed(self, tokens: int) -> list[Estimate]:
        """Layout-independent compute of all layers and the head; equal layers are priced once."""
        work, model = self.costs.work(tokens), self.setup.model
        counts: dict[tuple[str, str], int] = {}
        for kind, of in (("attention", model.attention_kind), ("mlp", model.mlp_kind)):
            for layer in range(model.num_hidden_layers):
                key = (kind, of(layer))
                counts[key] = counts.get(key, 0) + 1
        estimates = []
        for (kind, name), count in counts.items():
            for e in getattr(self._layer_costs, kind)(name, work):
                estimates.append(
                    Estimate(e.time_us * count, e.launch_us * count, e.wire_bytes * count, e.provenance, e.source)
                )
        factor = self.compute_factor(tokens)
        return [e.scaled(factor) for e in (*estimates, *self._layer_costs.head(work))]

    def compute_factor(self, tokens: int) -> float:
        """How much longer than modelled what is not communication takes, by the steps that were measured."""
        measured = self.setup.deployment.modes[self.mode].measured_step_us
        if measured is None:
            return 1.0
        if self._factors is None:
            self._factors = dict.fromkeys(measured, 1.0)  # as modelled, while the model is asked
            self._factors = compute_factors(self, measured)
        return between(self._factors, tokens)

    def step_us(self, plan: Plan, tokens: int) -> float:
        """Time of a whole forward under a plan."""
        return (self.pricer.plan_ps(plan, tokens) + self.fixed_ps(tokens)) / _PS

    def host_wait_us(self, plan: Plan, tokens: int) -> float:
        """The part of it in which the device waits for the host to launch."""
        return (self.pricer.plan_ps(plan, tokens) - self.pricer.device_ps(plan, tokens)) / _PS

    def uniform(self, strategy: str, tokens: int, own_kernels: bool = True) -> Uniform:
        """The cheapest legal member of a strategy at a token count. Pins are about the plan, not about its rivals."""
        try:
            plan = self.best(tokens, Restriction(strategies=(strategy,), pins=False, own_kernels=own_kernels))
        except NoLegalPlanError as error:
            return Uniform(strategy, None, None, error.message)
        return Uniform(strategy, plan, self.step_us(plan, tokens), None)

    def uniforms(self, tokens: int) -> list[Uniform]:
        """Every strategy at a token count."""
        return [self.uniform(name, tokens) for name in strategies()]

    def plain(self, tokens: int) -> Plan:
        """Plain all-reduce: the yardstick, whatever policy and memory limit say of it.

        It is what a user runs without commplan, so by the library and the kernels of the executor, never by our own.
        """
        graph = self.graph(Restriction(strategies=(PLAIN,), policy=False, own_kernels=False))
        return cheapest_plan(graph, Pricer(self.builder, limited=False), tokens)

    def library(self, tokens: int) -> Plan:
        """Plain all-reduce by the library of the machine alone, each norm a kernel apart."""
        plan = self.plain(tokens)
        if all(edge.op.impl is None for edge, _ in plan.counted):
            return plan
        if self._library is None:
            plain = Restriction(strategies=(PLAIN,), policy=False, own_kernels=False)
            self._library = without_impls(self.graph(plain))
        return cheapest_plan(self._library, Pricer(self.builder, limited=False), tokens)


def _alternates(graph: ForwardGraph, plan: Plan) -> bool:
    """True if layers of one kind change their ops more often than at the first and the last of them."""
    pairs = list(pairwise(zip(graph.layers, plan.layers, strict=True)))
    same = [a is b for (a, _), (b, _) in pairs]
    changes = sum(kept and x != y for kept, ((_, x), (_, y)) in zip(same, pairs, strict=True))
    runs = 1 + same.count(False)
    return changes > 2 * runs
