"""What a server does by itself, as plans: by its rules (`stock` in its executor's file), never by a search.

The server of an executor that is none is the one that it stands for: the same deployment, with that server's kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

from ..cost.terms import OneKernel, Term, Wire
from ..descriptions.setup import Setup
from ..executors import Executor, server_of
from ..executors.stock import Stock, StockFlag, StockForward, StockSum, Where
from ..strategy.executor_file import RESIDUAL_OUT
from ..strategy.file.document import FasterRival, is_faster
from ..strategy.layout import LAYER_BOUNDARIES, LayerShape, State
from ..strategy.op_kinds import ALL_GATHER, ALL_REDUCE
from ..strategy.ops import NONE, SLICE, Op, numerics_rank
from ..strategy.words import IMPL_KINDS, GroupName, MlpKind
from .graph import Edge, Plan
from .planning import ModePlanner

_MOVES = (NONE, SLICE, Op(ALL_GATHER.name))
"""What brings rows to their consumer where no rule says more."""


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


def _with_host_of(server: Executor, own: Executor) -> Executor:
    """The server launched as the executor that stands for it: its own calls, all else by the other's figures."""
    theirs = {name: figure for name, figure in server.host.calls.items() if name in server.impls}
    kinds = {name: figure for name, figure in own.host.calls.items() if name in IMPL_KINDS}
    return server.model_copy(update={"host": own.host.model_copy(update={"calls": kinds | theirs})})


def _in_graphs(setup: Setup, mode: str) -> Setup:
    """The setup with a mode that is replayed from graphs."""
    modes = dict(setup.deployment.modes)
    modes[mode] = modes[mode].model_copy(update={"launch": "graph"})
    return replace(setup, deployment=setup.deployment.model_copy(update={"modes": modes}))


@dataclass
class StockPlanner:
    """The server's own forwards in one mode of a setup. `planner` is the mode's own."""

    planner: ModePlanner
    server: ModePlanner = field(init=False)  # on the server's executor
    _plans: dict[tuple[object, ...], Plan] = field(default_factory=dict)
    _waits: dict[int, float] = field(default_factory=dict)
    _waits_alike: bool = True  # the server is charged with the plan's own wait
    _graphs: tuple[ModePlanner, int] | None = None  # the server where it replays graphs that a plan has not

    def __post_init__(self) -> None:
        setup, mode = self.planner.setup, self.planner.mode
        self.server = self.planner
        graphs = next((graph for graph in self.rules.graphs if self._covers(graph)), None)
        server = server_of(setup.executor)
        if server is setup.executor:
            if graphs is not None and self.planner.pricer.host.counts and setup.deployment.modes[mode].launch is None:
                self._graphs = ModePlanner(_in_graphs(setup, mode), mode), graphs.max_tokens
        elif graphs is not None:
            self.server = ModePlanner(_in_graphs(replace(setup, executor=server), mode), mode)
        else:  # eager there too: call by call alike
            self.server = ModePlanner(replace(setup, executor=_with_host_of(server, setup.executor)), mode)
            self._waits_alike = False

    @property
    def setup(self) -> Setup:
        """The deployment on the server's executor."""
        return self.server.setup

    @cached_property
    def rules(self) -> Stock:
        """What the server does."""
        rules = server_of(self.planner.setup.executor).stock
        assert rules is not None  # checked when the executor was read
        return rules

    @cached_property
    def flags(self) -> tuple[StockFlag, ...]:
        """The flags that change a forward of this mode."""
        return tuple(flag for flag in self.rules.flags if self._covers(flag))

    # ---- prices -----------------------------------------------------------------------------------------------------

    def prices(self, tokens: int) -> StockPrices:
        """Everything that a plan is held against at a token count."""
        own, library = self.planner, self.planner.library(tokens)
        return StockPrices(
            self.default(tokens), self.best_flag(tokens), StockStep("", library, own.step_us(library, tokens))
        )

    def default(self, tokens: int) -> StockStep:
        """The server without a flag; in a graph where it captures one by itself."""
        forward = next(f for f in self.rules.forwards if self._covers(f) and self._takes_own(f, tokens))
        step = self._step("", forward, tokens)
        if self._graphs is None or tokens > self._graphs[1]:
            return step
        return replace(step, step_us=self._graphs[0].step_us(step.plan, tokens))

    def best_flag(self, tokens: int) -> StockStep | None:
        """The flag with the shortest step, or None where none applies."""
        return min(self._flagged(tokens), key=lambda step: (step.step_us, step.name), default=None)

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
        steps = (self.default(tokens), *self._flagged(tokens))
        return {step.name: 1 - step.step_us / step_us for step in steps if is_faster(step.step_us, step_us)}

    def _crossing(self, name: str, plan: Plan, ahead: int, behind: int) -> int:
        """The count nearest to `behind` at which a forward of the server still leads."""
        while abs(ahead - behind) > 1:
            middle = (ahead + behind) // 2
            ahead, behind = (middle, behind) if name in self._leads(plan, middle) else (ahead, middle)
        return ahead

    def _flagged(self, tokens: int) -> list[StockStep]:
        """The step under each flag that numerics allow."""
        loosest = numerics_rank(self.setup.deployment.numerics.loosest)
        steps = (self._step(flag.name, flag, tokens) for flag in self.flags)
        return [step for step in steps if step.plan.numerics_rank <= loosest]

    def _step(self, name: str, forward: StockForward, tokens: int) -> StockStep:
        plan = self._plan(forward, tokens)
        step_us = self.server.step_us(plan, tokens) + forward.extra_gathers * self._gather_us(tokens)
        return StockStep(name, plan, step_us - self._hidden_us(forward, plan, tokens) + self._wait_us(tokens))

    def _wait_us(self, tokens: int) -> float:
        """For an executor that stands for the server, what its own plan waits for its host.

        The server's Python is not the executor's: charged with the same wait, the two differ by communication alone.
        """
        if self.server is self.planner or not self._waits_alike or not self.planner.pricer.host.counts:
            return 0.0
        if tokens not in self._waits:
            self._waits[tokens] = self.planner.host_wait_us(self.planner.best(tokens), tokens)
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
        if overlap is None or not self._covers(overlap):
            return 0.0
        fused = [(e, n) for e, n in plan.counted if e.boundary in LAYER_BOUNDARIES and e.op.kind.is_collective]
        estimate = self.server.costs.estimate
        wire_us = sum(n * estimate(t, tokens).total_us for e, n in fused for t in e.terms if t.category == "wire")
        beside = 1 - 1 / self.setup.parallelism.tp
        hidden = min(wire_us, self.server.fixed_ps(tokens) / 10**6) * beside
        return max(0.0, hidden - overlap.per_op_us.value * sum(n for _, n in fused))

    # ---- the rules --------------------------------------------------------------------------------------------------

    def _covers(self, where: Where) -> bool:
        setup = self.setup
        hardware, p, architecture = setup.hardware, setup.parallelism, setup.model.architecture
        facts = (
            (where.vendors, hardware.vendor),
            (where.topologies, hardware.links.intra_node.topology),
            (where.architectures, architecture),
            (where.moe_backends, p.moe_backend),
            (where.modes, self.server.mode),
            (where.weights, setup.deployment.dtypes.weights),
        )
        truths = (
            (where.peer_access, hardware.links.intra_node.has_peer_access or self._is_measured(where)),
            (where.fp8, hardware.compute.fp8_tflops is not None),
            (where.latent, setup.model.latent_width > 0),
            (where.attn_dp, p.attn_dp > 1),
            (where.attn_tp, p.attn_tp > 1),
        )
        return (
            all(accepted is None or fact in accepted for accepted, fact in facts)
            and all(wanted is None or wanted == fact for wanted, fact in truths)
            and architecture not in where.not_architectures
        )

    def _is_measured(self, where: Where) -> bool:
        """True where a calibration of this machine shows that the impl of a rule runs there."""
        return isinstance(where, StockSum) and self.server.costs.collectives.is_measured(where.impl)

    def _takes_own(self, forward: StockForward, tokens: int) -> bool:
        """False for a forward that is there only while an own all-reduce takes all its rows, and none does."""
        if not forward.takes_own:
            return True
        message = tokens * self.setup.model.hidden_size * self.server.costs.device.activation_bytes
        return any(message <= rule.max_message_bytes and self._reaches(rule, "tp") for rule in self.rules.sums)

    def _reaches(self, rule: StockSum, group: GroupName) -> bool:
        size = self.setup.parallelism.group_size(group)
        within = self.server.costs.collectives.num_nodes(group) == 1 and size > 1
        return within and (rule.max_ranks is None or size <= rule.max_ranks) and self._covers(rule)

    # ---- a forward --------------------------------------------------------------------------------------------------

    def _plan(self, forward: StockForward, tokens: int) -> Plan:
        """The plan of a forward. It is another one only where a limit of the rules lies between two token counts."""
        costs = self.server.costs
        row = self.setup.model.hidden_size * costs.device.activation_bytes
        messages = [costs.rows(rows, tokens) * row for rows in ("all", "padded", "dp_local")]
        fits = [message <= rule.max_message_bytes for rule in self.rules.sums for message in messages]
        key = (id(forward), *fits, *(tokens <= rule.max_tokens for rule in self.rules.fusions))
        if key not in self._plans:
            self._plans[key] = self._walk(forward, tokens)
        return self._plans[key]

    def _walk(self, forward: StockForward, tokens: int) -> Plan:
        model, p = self.setup.model, self.setup.parallelism
        last = model.num_hidden_layers - 1
        first = model.layer_shape(0, p)
        embed = self._edge(forward, "embed_out", None, first, "dense", False, tokens)
        state: State | None = embed.after
        layers = []
        walked: dict[tuple[object, ...], tuple[Edge, ...]] = {}
        for index in range(model.num_hidden_layers):
            shape, mlp = model.layer_shape(index, p), model.mlp_kind(index)
            key = (state, shape, mlp, index == last)
            if key not in walked:
                walked[key] = self._layer(forward, state, shape, mlp, index == last, tokens)
            layers.append(walked[key])
            state = walked[key][-1].after
        return Plan(embed, tuple(layers), self._edge(forward, "head_in", state, first, "dense", False, tokens))

    def _layer(
        self, forward: StockForward, state: State | None, shape: LayerShape, mlp: MlpKind, is_last: bool, tokens: int
    ) -> tuple[Edge, ...]:
        edges = []
        for boundary in LAYER_BOUNDARIES:
            edges.append(self._edge(forward, boundary, state, shape, mlp, is_last, tokens))
            state = edges[-1].after
        return tuple(edges)

    def _edge(
        self,
        forward: StockForward,
        boundary: str,
        before: State | None,
        shape: LayerShape,
        mlp: MlpKind,
        is_last: bool,
        tokens: int,
    ) -> Edge:
        """The op that the rules put at a boundary; where its layouts have no place for it, what moves the rows on."""
        named = forward.op(boundary, mlp == "moe", is_last)
        fuses = boundary in RESIDUAL_OUT and not (is_last and boundary == "mlp_out")  # no layer's norm follows the last
        candidates = (*(self._performed(named, tokens, fuses) if named is not None else ()), *_MOVES)
        for op in candidates:
            edge = self.server.builder.edge(boundary, op, before, shape)
            if edge is not None and self._is_taken(edge, tokens):
                return edge
        raise AssertionError(f"the rules of {self.rules.source} lead nowhere at {boundary} from {before}")

    def _performed(self, op: Op, tokens: int, fuses: bool) -> Iterator[Op]:
        """An op by whom the rules let perform it, the first that can; a finer residual is carried, else gathered."""
        impls: list[str | None] = [None]
        if op.name == ALL_REDUCE.name:
            fusing = [r.impl for r in self.rules.fusions if fuses and tokens <= r.max_tokens and self._covers(r)]
            impls = [*fusing, *(rule.impl for rule in self.rules.sums), None]
        folds = ("fold",) if op.kind.folds else ()
        residuals = (op.residual,) if op.residual is not None else (None, *folds, "gather")
        if self.setup.model.residual_streams > 1:  # no server folds several streams into a sum: they are gathered
            residuals = tuple("gather" if rule == "fold" else rule for rule in residuals)
        for residual in residuals:
            for impl in dict.fromkeys(impls):
                yield replace(op, residual=residual, impl=impl)

    def _is_taken(self, edge: Edge, tokens: int) -> bool:
        """False where no rule lets the impl of a sum take it: too large, too many ranks, other links."""
        impl, costs = edge.op.impl, self.server.costs
        if impl is None:
            return True
        if costs.lacks_table(edge.terms):
            return False  # no price: the library's stands in
        works = [t.work for t in edge.terms if t.category == "wire"]
        groups = {work.group for work in works if isinstance(work, Wire | OneKernel)}
        if any(rule.impl == impl for rule in self.rules.fusions):
            return edge.op.residual is None and all(costs.collectives.num_nodes(g) == 1 for g in groups)
        message = costs.message_bytes(edge.terms, tokens)
        return any(
            rule.impl == impl and message <= rule.max_message_bytes and all(self._reaches(rule, g) for g in groups)
            for rule in self.rules.sums
        )
