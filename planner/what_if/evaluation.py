"""One deployment at one token count: plain all-reduce, each uniform strategy, the plan, and what it is held against.

Plain all-reduce is the library's, the yardstick. Where commplan's own kernels were measured, the uniform strategy that
may use them stands beside it under a name of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from ..answers.breakdown import Breakdown, breakdown
from ..descriptions.setup import Setup
from ..search.graph import ForwardGraph, Plan, Restriction
from ..search.offers import has_own_kernels
from ..search.planning import ModePlanner
from ..search.stock import StockPlanner, StockPrices
from ..strategies import PLAIN, strategies
from ..strategy.bounds import MAX_TOKENS
from ..strategy.errors import InputError, NoLegalPlanError

PLAN = "plan"
NO_BUDGET = ("numerics.error_budget=null", "numerics.perplexity_budget=null")
"""Overrides: quantised sums cost their time alone."""
OWN = "own_all_reduce"  # uniform all-reduce by commplan's kernels where they are cheaper
OWN_NOTE = (
    "column all_reduce is the library's; own_all_reduce may use commplan's kernels, and an op by one of those is "
    "communication as a whole, with the quantisation and the norm that it does on the way"
)


@dataclass(frozen=True)
class Priced:
    """A named plan at a token count."""

    name: str
    plan: Plan
    parts: Breakdown


@dataclass(frozen=True)
class Evaluation:
    """All named plans at one point, by name; `refused` says why a strategy is not among them."""

    plans: dict[str, Priced]
    refused: dict[str, str]
    server: StockPlanner
    tokens: int

    @cached_property
    def held_against(self) -> StockPrices:
        """The stock server, the best of its flags, the library alone."""
        return self.server.prices(self.tokens, self.plans[PLAN].plan)

    @property
    def over_stock(self) -> float:
        """The stock server's step over the plan's."""
        return self.held_against.stock.step_us / self.plans[PLAN].parts.step_us

    def speed_up(self, name: str) -> float | None:
        """Plain all-reduce's step over this plan's."""
        if name not in self.plans:
            return None
        return self.plans[PLAIN].parts.step_us / self.plans[name].parts.step_us

    @property
    def fastest_uniform(self) -> str:
        """The uniform strategy with the shortest step; plain all-reduce among equals."""
        uniform = [p for p in self.plans.values() if p.name != PLAN]
        return min(uniform, key=lambda p: (p.parts.step_us, p.name != PLAIN, p.name)).name


@dataclass
class Structure:
    """What setups share that differ in prices alone: the graphs of each mode, and which strategies have none."""

    graphs: dict[str, dict[Restriction, ForwardGraph]] = field(default_factory=dict)
    refused: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass
class Evaluator:
    """Evaluates one setup at many modes and token counts."""

    setup: Setup
    structure: Structure = field(default_factory=Structure)
    _planners: dict[str, ModePlanner] = field(default_factory=dict)
    _servers: dict[str, StockPlanner] = field(default_factory=dict)
    _known: dict[tuple[str, int], Evaluation] = field(default_factory=dict)

    def planner(self, mode: str) -> ModePlanner:
        """The planner of a mode."""
        if mode not in self._planners:
            graphs = self.structure.graphs.setdefault(mode, {})
            own = {restriction: replace(graph, setup=self.setup) for restriction, graph in graphs.items()}
            self._planners[mode] = ModePlanner(self.setup, mode, _graphs=own)
        return self._planners[mode]

    def server(self, mode: str) -> StockPlanner:
        """The server that plans of a mode are held against."""
        if mode not in self._servers:
            self._servers[mode] = StockPlanner(self.planner(mode))
        return self._servers[mode]

    def at(self, mode: str, tokens: int) -> Evaluation:
        """Every named plan; NoLegalPlanError where the deployment's own constraints leave no plan."""
        known = self._known.get((mode, tokens))
        if known is None:
            known = self._known[mode, tokens] = self._evaluate(mode, tokens)
        return known

    def _evaluate(self, mode: str, tokens: int) -> Evaluation:
        check_tokens(tokens)
        planner = self.planner(mode)
        plan = planner.alone(tokens)
        refused: dict[str, str] = {}
        named = {PLAIN: planner.plain(tokens)}
        own = [OWN] if has_own_kernels(self.setup) else []
        for name in [*own, *strategies()]:
            if name != PLAIN:
                found = self._uniform(planner, PLAIN if name == OWN else name, tokens)
                if isinstance(found, Plan):
                    named[name] = found
                else:
                    refused[name] = found
        named[PLAN] = plan
        self.structure.graphs[mode] |= planner._graphs
        priced = {name: Priced(name, plan, breakdown(planner, plan, tokens)) for name, plan in named.items()}
        return Evaluation(priced, refused, self.server(mode), tokens)

    def _uniform(self, planner: ModePlanner, name: str, tokens: int) -> Plan | str:
        """The cheapest member of a strategy, or why it has none here."""
        key = (planner.mode, name)
        if key in self.structure.refused:
            return self.structure.refused[key]
        restriction = Restriction(strategies=(name,), pins=False)
        try:
            planner.graph(restriction)
        except NoLegalPlanError as error:  # no token count changes that
            self.structure.refused[key] = error.message
            return error.message
        try:
            return planner.best(tokens, restriction)
        except NoLegalPlanError as error:
            return error.message


def check_tokens(tokens: object) -> None:
    """Raise InputError unless it is a token count that can be planned."""
    if not isinstance(tokens, int) or isinstance(tokens, bool) or not 0 < tokens <= MAX_TOKENS:
        raise InputError(f"a whole number from 1 to {MAX_TOKENS} is expected", field="tokens", value=tokens)


def short_reason(strategy: str, reason: str) -> str:
    """Of a refusal that names a place and all that restricts it, what it says of the strategy's own ops."""
    _, _, within = reason.partition("(")
    ops, found, _ = within.rpartition("); restricted by ")
    return ops.removeprefix(f"{strategy}: ") if found else reason
