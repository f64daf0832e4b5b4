"""What a server does by itself at a token count: the plan that its rules lead to, never a search.

The rules are data (`stock` in its executor's file); here they are followed, boundary by boundary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ..cost.covering import covers
from ..cost.terms import OneKernel, Wire
from ..executors.stock import Stock, StockForward, StockSum
from ..executors.where import Where
from ..strategy.impl_rules import RESIDUAL_OUT
from ..strategy.layout import LAYER_BOUNDARIES, LayerShape, State
from ..strategy.op_kinds import ALL_GATHER, ALL_REDUCE
from ..strategy.ops import NONE, SLICE, Op
from ..strategy.words import GroupName, MlpKind
from .graph import Edge, Plan
from .planning import ModePlanner

_MOVES = (NONE, SLICE, Op(ALL_GATHER.name))
"""What brings rows to their consumer where no rule says more."""


@dataclass
class StockForwards:
    """The forwards of a server in one mode: `server` is a planner on its executor."""

    server: ModePlanner
    rules: Stock
    _plans: dict[tuple[object, ...], Plan] = field(default_factory=dict)

    # ---- the rules --------------------------------------------------------------------------------------------------

    def covers(self, where: Where) -> bool:
        """Does a rule speak of this deployment and mode?"""
        setup = self.server.setup
        peer_access = setup.hardware.links.intra_node.has_peer_access or self._is_measured(where)
        return covers(where, setup, self.server.mode, peer_access)

    def _is_measured(self, where: Where) -> bool:
        """True where a calibration of this machine shows that the impl of a rule runs there."""
        return isinstance(where, StockSum) and self.server.costs.collectives.is_measured(where.impl)

    def takes_own(self, forward: StockForward, tokens: int) -> bool:
        """False for a forward that is there only while an own all-reduce takes all its rows, and none does."""
        if not forward.takes_own:
            return True
        message = tokens * self.server.setup.model.hidden_size * self.server.costs.device.activation_bytes
        return any(rule.takes(message) and self._reaches(rule, "tp") for rule in self.rules.sums)

    def _reaches(self, rule: StockSum, group: GroupName) -> bool:
        size = self.server.setup.parallelism.group_size(group)
        within = self.server.costs.collectives.num_nodes(group) == 1 and size > 1
        return within and (rule.max_ranks is None or size <= rule.max_ranks) and self.covers(rule)

    # ---- a forward --------------------------------------------------------------------------------------------------

    def plan(self, forward: StockForward, tokens: int) -> Plan:
        """The plan of a forward. It is another one only where a limit of the rules lies between two token counts."""
        costs = self.server.costs
        row = self.server.setup.model.hidden_size * costs.device.activation_bytes
        messages = [costs.rows(rows, tokens) * row for rows in ("all", "padded", "dp_local")]
        fits = [rule.takes(message) for rule in self.rules.sums for message in messages]
        key = (id(forward), *fits, *(rule.fuses(tokens, messages[0]) for rule in self.rules.fusions))
        if key not in self._plans:
            self._plans[key] = self._walk(forward, tokens)
        return self._plans[key]

    def _walk(self, forward: StockForward, tokens: int) -> Plan:
        model, p = self.server.setup.model, self.server.setup.parallelism
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
        fuses = boundary in RESIDUAL_OUT
        is_end = is_last and boundary == "mlp_out"  # no layer's norm follows, but the one before the head
        candidates = (*(self._performed(named, tokens, fuses, is_end) if named is not None else ()), *_MOVES)
        for op in candidates:
            edge = self.server.builder.edge(boundary, op, before, shape)
            if edge is not None and self._is_taken(edge, tokens):
                return edge
        raise AssertionError(f"the rules of {self.rules.source} lead nowhere at {boundary} from {before}")

    def _performed(self, op: Op, tokens: int, fuses: bool, is_end: bool) -> Iterator[Op]:
        """An op by whom the rules let perform it, the first that can; a finer residual is carried, else gathered."""
        impls: list[str | None] = [None]
        if op.name == ALL_REDUCE.name:
            whole = tokens * self.server.setup.model.hidden_size * self.server.costs.device.activation_bytes
            rules = [r for r in self.rules.fusions if fuses and (r.before_head or not is_end)]
            fusing = [r.impl for r in rules if r.fuses(tokens, whole) and self.covers(r)]
            impls = [*fusing, *(rule.impl for rule in self.rules.sums), None]
        folds = ("fold",) if op.kind.folds else ()
        residuals = (op.residual,) if op.residual is not None else (None, *folds, "gather")
        if self.server.setup.model.residual_streams > 1:  # no server folds several streams into a sum: all are gathered
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
            rule.impl == impl and rule.takes(message) and all(self._reaches(rule, g) for g in groups)
            for rule in self.rules.sums
        )
