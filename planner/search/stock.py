"""What a plan is held against: the server by itself and under its flags, by its rules and never by a search.

The server of an executor that is none is the one that it stands for: the same deployment, with that server's kernels.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

from ..cost.covering import graphs_up_to
from ..cost.terms import HandOver, Term, Wire
from ..descriptions.setup import Setup
from ..executors import Executor, server_of
from ..executors.stock import Stock, StockFlag, StockForward
from ..strategy.file.document import FasterRival, is_faster
from ..strategy.layout import LAYER_BOUNDARIES
from ..strategy.op_kinds import ALL_GATHER
from ..strategy.ops import numerics_rank
from ..strategy.words import IMPL_KINDS
from .graph import Edge, Plan
from .offers import wire_refusal
from .planning import ModePlanner
from .stock_forwards import StockForwards


@dataclass(frozen=True)
class StockStep:
    """A forward of the server: its plan, and the time of the whole step.

    name  the flag that the server was started with; empty: none
    """

    name: str
    plan: Plan
    step_us: float


@dataclass(frozen=True)
class StockPrices:
    """What a plan is held against at one token count: the server, its best flag, the library's all-reduce."""

    stock: StockStep
    best_flag: StockStep | None
    library: StockStep

    @property
    def helping_flag(self) -> StockStep | None:
        """The best flag, where the server's step is no longer with it than without: else it is nobody's rival."""
        flag = self.best_flag
        return flag if flag is not None and flag.step_us <= self.stock.step_us else None


def _with_host_of(server: Executor, own: Executor) -> Executor:
    """The server launched as the executor that stands for it: its own calls, all else by the other's figures."""
    theirs = {name: figure for name, figure in server.host.calls.items() if name in server.impls}
    kinds = {name: figure for name, figure in own.host.calls.items() if name in IMPL_KINDS}
    return server.model_copy(update={"host": own.host.model_copy(update={"calls": kinds | theirs})})


def _says_launch(setup: Setup, mode: str) -> bool:
    """Does the deployment itself say how a mode is launched? Then the server launches it so too."""
    workload = setup.deployment.modes[mode]
    return workload.launch is not None or workload.graph_up_to is not None


def _in_graphs(setup: Setup, mode: str) -> Setup:
    """The setup with a mode that is replayed from graphs."""
    modes = dict(setup.deployment.modes)
    modes[mode] = modes[mode].model_copy(update={"launch": "graph", "graph_up_to": None})
    return replace(setup, deployment=setup.deployment.model_copy(update={"modes": modes}))


@dataclass
class StockPlanner:
    """The server's own forwards in one mode of a setup. `planner` is the mode's own."""

    planner: ModePlanner
    told: Stock | None = None  # the rules of a server that was told otherwise than by default
    server: ModePlanner = field(init=False)  # on the server's executor
    _forwards: StockForwards = field(init=False)
    _waits: dict[int, float] = field(default_factory=dict)
    _waits_alike: bool = True  # the server is charged with the plan's own wait
    _graphs: tuple[ModePlanner, int] | None = None  # the server where it replays graphs that a plan has not

    def __post_init__(self) -> None:
        setup, mode = self.planner.setup, self.planner.mode
        self.server, self._forwards = self.planner, StockForwards(self.planner, self.rules)
        graphs = graphs_up_to(self.rules.graphs, setup, mode)
        server = server_of(setup.executor)
        if server is setup.executor:
            if graphs > self.planner.pricer.host.graph_up_to and not _says_launch(setup, mode):
                self._graphs = ModePlanner(_in_graphs(setup, mode), mode), graphs
        elif graphs:
            self.server = ModePlanner(_in_graphs(replace(setup, executor=server), mode), mode)
        else:  # eager there too: call by call alike
            self.server = ModePlanner(replace(setup, executor=_with_host_of(server, setup.executor)), mode)
            self._waits_alike = False
        self._forwards = StockForwards(self.server, self.rules)

    @property
    def setup(self) -> Setup:
        """The deployment on the server's executor."""
        return self.server.setup

    @cached_property
    def rules(self) -> Stock:
        """What the server does."""
        rules = self.told or server_of(self.planner.setup.executor).stock
        assert rules is not None  # checked when the executor was read
        return rules

    @cached_property
    def flags(self) -> tuple[StockFlag, ...]:
        """The flags that change a forward of this mode."""
        return tuple(flag for flag in self.rules.flags if self._forwards.covers(flag))

    # ---- prices -----------------------------------------------------------------------------------------------------

    def prices(self, tokens: int, plan: Plan | None = None) -> StockPrices:
        """Everything that a plan is held against at a token count. None, here and below: the one that a count gets that
        shares no range."""
        own, library = self.planner, self.planner.library(tokens)
        return StockPrices(
            self.default(tokens, plan),
            self.best_flag(tokens, plan),
            StockStep("", library, own.step_us(library, tokens)),
        )

    def default(self, tokens: int, plan: Plan | None = None) -> StockStep:
        """The server without a flag, held against a plan; in a graph where it captures one by itself."""
        rules = self._forwards
        forward = next(f for f in self.rules.forwards if rules.covers(f) and rules.takes_own(f, tokens))
        step = self._step("", forward, tokens, self._wait_us(tokens, plan))
        if self._graphs is None or tokens > self._graphs[1]:
            return step
        return replace(step, step_us=self._graphs[0].step_us(step.plan, tokens))

    def best_flag(self, tokens: int, plan: Plan | None = None) -> StockStep | None:
        """The flag with the shortest step, or None where none applies."""
        return min(self._flagged(tokens, plan), key=lambda step: (step.step_us, step.name), default=None)

    def faster_rivals(self, plan: Plan, first: int, last: int) -> tuple[FasterRival, ...]:
        """Where in a range the server leads a plan, with a flag or by itself; flags first, the longest lead first.

        Asked at the ends and at every power of two; then the counts are bisected at which the lead begins and ends.
        """
        counts = sorted({first, last, *(2**k for k in range(last.bit_length()) if first < 2**k < last)})
        leads: dict[str, dict[int, float]] = {}
        for tokens in counts:
            for name, lead in self._leads(plan, tokens).items():
                leads.setdefault(name, {})[tokens] = lead
        found = []
        for name, ahead in leads.items():
            if max(ahead.values()) <= self.setup.deployment.search.range_tolerance:
                continue  # what a range gives up to be one
            begin, end = min(ahead), max(ahead)
            before, after = [c for c in counts if c < begin], [c for c in counts if c > end]
            begin = self._crossing(name, plan, begin, before[-1]) if before else begin
            end = self._crossing(name, plan, end, after[0]) if after else end
            found.append(FasterRival(name or None, begin, end, max(ahead.values())))
        return tuple(sorted(found, key=lambda rival: (rival.flag is None, -rival.lead, rival.flag or "")))

    def _leads(self, plan: Plan, tokens: int) -> dict[str, float]:
        """By how much each forward of the server leads a plan at a token count, by its flag."""
        step_us = self.planner.step_us(plan, tokens)
        steps = (self.default(tokens, plan), *self._flagged(tokens, plan))
        return {step.name: 1 - step.step_us / step_us for step in steps if is_faster(step.step_us, step_us)}

    def _crossing(self, name: str, plan: Plan, ahead: int, behind: int) -> int:
        """The count nearest to `behind` at which a forward of the server still leads."""
        while abs(ahead - behind) > 1:
            middle = (ahead + behind) // 2
            ahead, behind = (middle, behind) if name in self._leads(plan, middle) else (ahead, middle)
        return ahead

    def _flagged(self, tokens: int, plan: Plan | None = None) -> list[StockStep]:
        """The step under each flag that numerics allow."""
        loosest = numerics_rank(self.setup.deployment.numerics.loosest)
        wait_us = self._wait_us(tokens, plan) if self.flags else 0.0
        steps = (self._step(flag.name, flag, tokens, wait_us) for flag in self.flags)
        return [step for step in steps if step.plan.numerics_rank <= loosest and self._is_allowed(step.plan)]

    def _is_allowed(self, plan: Plan) -> bool:
        """False for a flag that breaks what the deployment says of numerics: formats, error budget, forbidden ops."""
        if not self._may_travel(plan) or self.planner.over_budget(plan):
            return False
        backend, rules = self.setup.hardware.backend, self.setup.deployment.numerics.forbid
        if not rules:  # asked at every token count
            return True
        places: list[tuple[int | None, Edge]] = [(None, plan.embed_out), (None, plan.head_in)]
        places += [(index, edge) for index, layer in enumerate(plan.layers) for edge in layer]
        return not any(
            rule.means(edge.op, backend) and rule.covers(self.planner.mode, edge.boundary, layer)
            for rule in rules
            for layer, edge in places
        )

    def _may_travel(self, plan: Plan) -> bool:
        """False for a plan whose sums travel in a wire format that the deployment does not list."""
        return all(wire_refusal(edge.op, self.setup) is None for edge, _ in plan.counted)

    def _step(self, name: str, forward: StockForward, tokens: int, wait_us: float) -> StockStep:
        plan = self._forwards.plan(forward, tokens)
        step_us = self.server.step_us(plan, tokens) + forward.extra_gathers * self._gather_us(tokens)
        return StockStep(name, plan, step_us - self._hidden_us(forward, plan, tokens) + wait_us)

    def _wait_us(self, tokens: int, held: Plan | None) -> float:
        """For an executor that stands for the server, what the plan that is held against it waits for its host.

        The server's Python is not the executor's: charged with the same wait, the two differ by communication alone.
        """
        if self.server is self.planner or not self._waits_alike or not self.planner.pricer.host.counts(tokens):
            return 0.0
        if held is not None:
            return self.planner.host_wait_us(held, tokens)
        if tokens not in self._waits:
            self._waits[tokens] = self.planner.host_wait_us(self.planner.alone(tokens), tokens)
        return self._waits[tokens]

    def _gather_us(self, tokens: int) -> float:
        costs, setup = self.server.costs, self.setup
        work = Wire(
            ALL_GATHER.name,
            setup.hardware.backend,
            setup.deployment.dtypes.activations,
            "tp",
            costs.device.activation_bytes,
        )
        return costs.estimate(Term("wire", ALL_GATHER.name, "padded", setup.model.hidden_size, work), tokens).total_us

    def _hidden_us(self, forward: StockForward, plan: Plan, tokens: int) -> float:
        """Wire time that runs beside the GEMMs of the layers, less what the fused ops cost for that; never less than 0.

        What their launches cost was measured in long prefills: in short ones the flag gets the benefit of the doubt.
        """
        overlap = forward.overlap
        if overlap is None or not self._forwards.covers(overlap):
            return 0.0
        fused = [(e, n) for e, n in plan.counted if e.boundary in LAYER_BOUNDARIES and e.op.kind.is_collective]
        estimate = self.server.costs.estimate
        terms = [(t, n) for e, n in fused for t in e.terms if t.category == "wire" and not isinstance(t.work, HandOver)]
        wire_us = sum(n * estimate(t, tokens).total_us for t, n in terms)
        beside = 1 - 1 / self.setup.parallelism.tp
        hidden = min(wire_us, self.server.fixed_ps(tokens) / 10**6) * beside
        return max(0.0, hidden - overlap.per_op_us.value * sum(n for _, n in fused))
