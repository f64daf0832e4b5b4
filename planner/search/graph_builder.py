"""Builds the graphs of a forward mode: what is offered, what is refused and why, what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from ..cost.memory import MemoryCosts
from ..cost.numerics import relative_rms_error
from ..cost.op_costs import OpCosts
from ..descriptions.deployment import parse_layers
from ..descriptions.setup import Setup
from ..strategies import Strategy, strategies
from ..strategy.layout import (
    IN_BOUNDARIES,
    LAYER_BOUNDARIES,
    IllegalOpError,
    LayerShape,
    State,
    apply,
    group_of,
    numerics_class,
    with_group,
)
from ..strategy.ops import Op, numerics_rank
from ..strategy.words import MlpKind
from .damage import ERROR_UNIT, Damage, damage_of
from .formats import check_formats
from .graph import (
    ANY,
    Boundary,
    Edge,
    ForwardGraph,
    LayerGraph,
    Rejection,
    Restriction,
    check_connected,
)
from .offers import Offers, wire_refusal
from .sum_rules import sum_refusal
from .why_nothing import why_nothing


@dataclass
class GraphBuilder:
    """Builds the graphs of a mode; states and edges are shared between layers and restrictions."""

    setup: Setup
    mode: str
    costs: OpCosts
    memory: MemoryCosts = field(init=False)
    offers: Offers = field(init=False)
    _edges: dict[tuple[object, ...], Edge | IllegalOpError] = field(default_factory=dict)
    _shared: dict[tuple[object, ...], Boundary] = field(default_factory=dict)  # kinds of layers that offer the same

    def __post_init__(self) -> None:
        self.memory = MemoryCosts(self.setup)
        self.offers = Offers(self.setup, self.costs, self.mode)

    def build(self, restriction: Restriction = ANY) -> ForwardGraph:
        """The graph of the mode under a restriction; raises NoLegalPlanError where nothing leads to the end."""
        if restriction.policy:
            check_formats(self.offers)
        model, p = self.setup.model, self.setup.parallelism
        chosen = self.offers.strategies(restriction)
        layer_graphs: dict[tuple[object, ...], LayerGraph] = {}
        offered: dict[tuple[object, ...], dict[str, Boundary]] = {}  # by all of the key that boundaries depend on
        layers = []
        first = model.layer_shape(0, p)
        embed = self._boundary("embed_out", (None,), chosen, restriction, None, first, "dense")
        for layer in range(model.num_hidden_layers):
            shape, mlp = model.layer_shape(layer, p), model.mlp_kind(layer)
            alike = (shape, mlp, self._rules(layer, restriction))
            attention = model.attention_kind(layer)
            key = (*alike, attention)
            if key not in layer_graphs:
                if alike not in offered:
                    offered[alike] = self._boundaries(layer, chosen, restriction, shape, mlp)
                layer_graphs[key] = LayerGraph(key, offered[alike], attention, mlp, shape)
            layers.append(layer_graphs[key])
        last = layers[-1].boundaries["mlp_out"]
        ends = tuple(dict.fromkeys(e.after for edges in last.values() for e in edges))
        head = self._boundary("head_in", ends, chosen, restriction, None, first, "dense")
        graph = ForwardGraph(self.setup, self.mode, embed, tuple(layers), head, self._damage)
        check_connected(graph, restriction, partial(why_nothing, self, restriction))
        return graph

    def rejections(
        self, boundary: str, layer: int | None, before: State | None, offering: tuple[str, ...] | None = None
    ) -> Iterator[Rejection]:
        """Every op that any strategy (or some: `offering`) offers at a boundary and that may not stand there from
        `before`."""
        model, p = self.setup.model, self.setup.parallelism
        shape = model.layer_shape(layer or 0, p)
        mlp = model.mlp_kind(layer) if layer is not None else "dense"
        seen = set()
        offered_by = tuple(strategies()[name] for name in offering or strategies())
        for op, reason in self.offers.candidates(boundary, offered_by, ANY):
            if op in seen:
                continue
            seen.add(op)
            # On one rank nothing is left to do, whoever could do it.
            why, policy = (reason if p.tp > 1 else None) or self._unable(boundary, op, mlp), None
            if why is None and (policy := self._forbidden(boundary, op, layer, ANY)) is None:
                edge = self._edge(boundary, op, before, shape)
                if isinstance(edge, Edge) and not self.offers.is_offered(edge.op, edge.terms, ANY):
                    continue
                why = str(edge) if isinstance(edge, IllegalOpError) else self._unable(boundary, edge.op, mlp)
                if why is None and isinstance(edge, Edge):
                    policy = self._policy_refusal(edge, layer, ANY)
            if why or policy:
                # Two sums differ by their group alone, so each reason is that of the group it speaks of.
                spelled = op if boundary in IN_BOUNDARIES else with_group(boundary, op, before, shape, p)
                yield Rejection(spelled, why or policy or "", before, why is None)

    def lacks_table_alone(self, boundary: str, layer: int | None, before: State | None, op: Op) -> bool:
        """True for an op that may stand at a boundary but for a table of its impl: it has no rejection."""
        if self._forbidden(boundary, op, layer, ANY):
            return False
        edge = self._edge(boundary, op, before, self.setup.model.layer_shape(layer or 0, self.setup.parallelism))
        if not isinstance(edge, Edge) or self.offers.is_offered(edge.op, edge.terms, ANY):
            return False
        return self._policy_refusal(edge, layer, ANY) is None

    # ---- one boundary -----------------------------------------------------------------------------------------------

    def _boundaries(
        self, layer: int, chosen: tuple[Strategy, ...], restriction: Restriction, shape: LayerShape, mlp: MlpKind
    ) -> dict[str, Boundary]:
        boundaries: dict[str, Boundary] = {}
        # Entering states: whatever any layer can leave behind. Unreachable ones cost little and are never used.
        states = self._entering_states()
        for boundary in LAYER_BOUNDARIES:
            boundaries[boundary] = self._boundary(boundary, states, chosen, restriction, layer, shape, mlp)
            states = tuple(dict.fromkeys(e.after for edges in boundaries[boundary].values() for e in edges))
        return boundaries

    def _entering_states(self) -> tuple[State | None, ...]:
        p = self.setup.parallelism
        layouts = ["replicated"] if p.tp == 1 else ["replicated", "token_sharded"]
        if p.attn_dp > 1 and p.attn_tp > 1:
            layouts.insert(1, "dp_local")
        plain = [State(x, x) for x in layouts]  # type: ignore[arg-type]
        return (*plain, *(State(s.hidden, s.residual, fused=True) for s in plain))

    def _boundary(
        self,
        boundary: str,
        states: tuple[State | None, ...],
        chosen: tuple[Strategy, ...],
        restriction: Restriction,
        layer: int | None,
        shape: LayerShape,
        mlp: MlpKind,
    ) -> Boundary:
        offered = dict.fromkeys(op for op, why in self.offers.candidates(boundary, chosen, restriction) if why is None)
        candidates = [op for op in offered if self._refusal(boundary, op, layer, mlp, restriction) is None]
        result: Boundary = {}
        for before in states:
            edges: dict[Op, Edge] = {}
            for op in candidates:
                edge = self._edge(boundary, op, before, shape)
                if isinstance(edge, Edge) and not self.offers.is_offered(edge.op, edge.terms, restriction):
                    continue
                if isinstance(edge, Edge) and self._edge_refusal(edge, layer, mlp, restriction) is None:
                    edges.setdefault(edge.op, edge)
            kept = self._named_only(boundary, tuple(edges.values()), restriction)
            if kept:
                result[before] = kept
        return self._shared.setdefault(tuple(result.items()), result)

    def _named_only(self, boundary: str, edges: tuple[Edge, ...], restriction: Restriction) -> tuple[Edge, ...]:
        named = [op for where, op in restriction.only if where == boundary]
        matching = tuple(e for e in edges if any(_matches(e.op, op) for op in named))
        return matching or edges

    def edge(self, boundary: str, op: Op, before: State | None, shape: LayerShape) -> Edge | None:
        """An op between its layouts, whatever is offered or allowed there; None where algebra or impl refuse it."""
        found = self._edge(boundary, op, before, shape)
        return found if isinstance(found, Edge) else None

    def in_place_of(self, edge: Edge, op: Op, mlp: MlpKind) -> Iterator[Edge]:
        """An op instead of an edge, by every impl that the search may choose; whatever the deployment allows."""
        for spelled in self.offers.by_impls(edge.boundary, op):
            found = self._edge(edge.boundary, spelled, edge.before, edge.shape)
            if not isinstance(found, Edge) or found.after != edge.after:
                continue
            offered = self.offers.is_offered(found.op, found.terms, ANY)
            if offered and self._unable(edge.boundary, found.op, mlp) is None:
                yield found

    def _edge(self, boundary: str, op: Op, before: State | None, shape: LayerShape) -> Edge | IllegalOpError:
        if shape.ends_stage and boundary != "mlp_out":
            shape = replace(shape, ends_stage=False)  # the same op there as in any layer
        key = (boundary, op, before, shape)
        if key not in self._edges:
            self._edges[key] = self._new_edge(boundary, op, before, shape)
        return self._edges[key]

    def _new_edge(self, boundary: str, op: Op, before: State | None, shape: LayerShape) -> Edge | IllegalOpError:
        p = self.setup.parallelism
        try:
            after = apply(boundary, op, before, shape, p)
            spelled = with_group(boundary, op, before, shape, p)
            if spelled != op:
                return self._edge(boundary, spelled, before, shape)
            group = group_of(boundary, op, before, shape, p)
            self.offers.check_impl(boundary, op, group, shape)
        except IllegalOpError as reason:
            return reason
        numerics = numerics_class(boundary, op, p)
        outliers = self.setup.deployment.numerics.outlier_ratio
        error = relative_rms_error(op, p.group_size(group), outliers, self.setup.model.hidden_size)
        return Edge(
            boundary,
            op,
            before,
            after,
            self.costs.terms(boundary, op, before, after, shape),
            numerics,
            numerics_rank(numerics),
            round(error * error * ERROR_UNIT),
            shape,
        )

    # ---- what is refused ---------------------------------------------------------------------------------------------

    def _unable(self, boundary: str, op: Op, mlp: MlpKind, restriction: Restriction = ANY) -> str | None:
        setup = self.setup
        can, architecture = setup.executor.can, setup.model.architecture
        if restriction.unmeasured and op.is_pushed:  # measured by this executor's kernels, and run by a server alone
            op = replace(op, algorithm=None)
        return can.refusal(boundary, op, self.mode, mlp, setup.parallelism, restriction.stock, architecture)

    def _refusal(self, boundary: str, op: Op, layer: int | None, mlp: MlpKind, restriction: Restriction) -> str | None:
        refusal = self._unable(boundary, op, mlp, restriction) or self._forbidden(boundary, op, layer, restriction)
        return refusal or (wire_refusal(op, self.setup) if restriction.policy else None)

    def _forbidden(self, boundary: str, op: Op, layer: int | None, restriction: Restriction) -> str | None:
        if restriction.policy:
            for index, rule in enumerate(self.setup.deployment.numerics.forbid):
                if rule.means(op, self.setup.hardware.backend) and rule.covers(self.mode, boundary, layer):
                    return f"forbidden by numerics.forbid[{index}]"
        return None

    def _edge_refusal(self, edge: Edge, layer: int | None, mlp: MlpKind, restriction: Restriction) -> str | None:
        """Of an op where it stands, with its group spelled."""
        refusal = self._unable(edge.boundary, edge.op, mlp, restriction)
        return refusal or self._policy_refusal(edge, layer, restriction)

    def _policy_refusal(self, edge: Edge, layer: int | None, restriction: Restriction) -> str | None:
        numerics = self.setup.deployment.numerics
        if restriction.policy and edge.rank > numerics_rank(numerics.loosest):
            return f"is {edge.numerics}, and numerics.loosest is {numerics.loosest}"
        if restriction.policy and (why := wire_refusal(edge.op, self.setup)):
            return why
        if restriction.policy:
            p = self.setup.parallelism
            ranks = p.group_size(group_of(edge.boundary, edge.op, edge.before, edge.shape, p))
            if (why := sum_refusal(edge.op, ranks, self.mode, self.setup)) is not None:
                return why
        if restriction.policy and restriction.pins:
            for index, rule in enumerate(numerics.pin):
                is_meant = rule.means(edge.op, self.setup.hardware.backend)
                if rule.covers(self.mode, edge.boundary, layer) and not is_meant:
                    by = "" if rule.impl is None else f" by {rule.impl}"
                    return f"numerics.pin[{index}] wants {rule.op}{by} here"
        return None

    def _rules(self, layer: int, restriction: Restriction) -> tuple[object, ...]:
        """Which rules speak of this layer: layers under the same rules share a LayerGraph."""
        if not restriction.policy:
            return ()
        n = self.setup.deployment.numerics
        return tuple(
            (kind, rule.op, rule.impl, rule.boundary)
            for kind, rules in (("pin", n.pin), ("forbid", n.forbid))
            for rule in rules
            if (rule.modes is None or self.mode in rule.modes)
            and (rule.layers is None or layer in self._layers_of(rule.layers))
        )

    def _layers_of(self, layers: str | int) -> frozenset[int]:
        cached = self._parsed.get(layers)
        if cached is None:
            cached = self._parsed[layers] = parse_layers(layers)
        return cached

    _parsed: dict[str | int, frozenset[int]] = field(default_factory=dict)

    @cached_property
    def _damage(self) -> Damage:
        return damage_of(self.setup.deployment.numerics, self.setup.sensitivity)


def _matches(op: Op, named: Op) -> bool:
    """True if `op` is what a plan names: the parameters it leaves out may be anything."""
    return op.name == named.name and all(
        wanted is None or getattr(op, parameter) == wanted
        for parameter, wanted in (
            ("algorithm", named.algorithm),
            ("group", named.group),
            ("residual", named.residual),
            ("impl", named.impl),
            ("wire_name", named.wire_name),
            ("scale_group", named.scale_group),
            ("pieces", named.pieces),
        )
    )
