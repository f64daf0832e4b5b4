"""Why this op here? Every op that any strategy offers at a boundary, with its cost or with the reason it may not stand.

An alternative is judged by the chosen plan with this one op exchanged, and the fewest other changes that the layouts
demand, because an op changes what its neighbours see. Its step time says what the exchange really costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from functools import cached_property

from ..cost.estimate import Estimate, weakest
from ..search.graph import Edge, ForwardGraph, Plan, Restriction
from ..search.planning import ModePlanner
from ..search.pricing import Pricer
from ..search.stock import StockPlanner, StockPrices, StockStep
from ..search.swap import Place, Swaps, boundary_at
from ..strategy.errors import InputError, NoLegalPlanError, did_you_mean
from ..strategy.layout import BOUNDARIES, FORWARD_BOUNDARIES, LAYER_BOUNDARIES, State
from ..strategy.ops import Op
from ..strategy.words import CATEGORIES, LaunchState, Numerics, Provenance
from .refusals import rejection, same, why_absent, why_not_around
from .to_file import collective_provenance


@dataclass(frozen=True, repr=False)
class Option:
    """One op at the place asked about.

    `time_us` and `breakdown` are of this boundary; `step_us` is of the whole forward with the op exchanged here.
    `wire_contains` are the categories that an op by one kernel has in its wire time: nothing of them stands apart.
    """

    op: Op
    impl: str | None
    numerics: Numerics
    legal: bool
    reason: str
    time_us: float | None
    breakdown: dict[str, float]
    source: str
    step_us: float | None
    slower_by_us: float | None
    neighbours: dict[str, str]
    wire_contains: tuple[str, ...] = ()

    def __repr__(self) -> str:
        time = "" if self.time_us is None else f"{self.time_us:.1f} us here, "
        return f"<Option {self.op}: {time}{'' if self.legal else 'not allowed: '}{self.reason}>"


@dataclass(frozen=True)
class StockOp:
    """What the stock server runs at the place asked about, and its time there. `flag`: if started with it."""

    flag: str
    op: Op
    impl: str | None
    time_us: float
    provenance: Provenance


@dataclass(frozen=True)
class Explanation:
    """The chosen op and every other one, at one boundary of one forward; and what the server does there by itself."""

    mode: str
    tokens: int
    layer: int | None
    boundary: str
    chosen: Option
    alternatives: list[Option]
    held_against: StockPrices
    stock_ops: list[StockOp]
    launch: LaunchState = "graph"
    host_wait_us: float = 0.0  # of the whole step under the plan
    compute_factor: float = 1.0  # how much longer than modelled takes what is not communication, by a measured step


_FREE = Restriction(policy=False)
_AS_FAST_US = 0.05


class Explainer:
    """Explains the choices of one forward mode at one token count. `plan` is what was chosen, or what a file has.

    edited  the plan is a file's, and not what the planner chose for its range
    served  the token counts that the plan is for
    """

    def __init__(
        self,
        planner: ModePlanner,
        tokens: int,
        plan: Plan,
        edited: bool = False,
        served: tuple[int, int] | None = None,
    ) -> None:
        self._planner, self._tokens, self._plan, self._edited = planner, tokens, plan, edited
        self._served = f"{served[0]}-{served[1]} tokens" if served is not None else "a range"
        self._server = StockPlanner(planner)
        self._step_us = planner.step_us(plan, tokens)

    def explain(self, boundary: str, layer: int | None) -> Explanation:
        """The explanation of one boundary; raises InputError for a place that does not exist."""
        check_place(boundary, layer, len(self._plan.layers))
        edge = edge_at(self._plan, boundary, layer)
        chosen = self._option(edge, self._plan, layer, "chosen")
        seen = {edge.op}
        alternatives = []
        for candidate, plan, why in self._alternatives(boundary, layer):
            if candidate.op not in seen:
                seen.add(candidate.op)
                alternatives.append(self._option(candidate, plan, layer, why))
        for op, reason in self._refusals(boundary, layer, edge.before, seen):
            if not any(same(op, other if op.pieces else replace(other, pieces=None)) for other in seen):
                seen.add(op)
                alternatives.append(Option(op, op.impl, op.kind.numerics, False, reason, None, {}, "", None, None, {}))
        alternatives.sort(key=lambda o: (not o.legal, o.step_us is None, o.step_us or 0.0, str(o.op)))
        prices = self._server.prices(self._tokens, self._plan)
        steps = (prices.stock, *((prices.best_flag,) if prices.best_flag else ()))
        ops = [self._stock_op(step, boundary, layer) for step in steps]
        planner = self._planner
        return Explanation(
            planner.mode,
            self._tokens,
            layer,
            boundary,
            chosen,
            alternatives,
            prices,
            ops,
            planner.pricer.host.state(self._tokens),
            planner.host_wait_us(self._plan, self._tokens),
            planner.compute_factor(self._tokens),
        )

    def _stock_op(self, step: StockStep, boundary: str, layer: int | None) -> StockOp:
        edge, server = edge_at(step.plan, boundary, layer), self._server.server
        found = [server.costs.estimate(term, self._tokens) for term in edge.terms]
        time_us, provenance = sum(e.total_us for e in found), weakest({e.provenance for e in found if e.wire_bytes})
        impl = (edge.op.impl or server.setup.hardware.backend) if edge.op.kind.is_collective else None
        return StockOp(step.name, edge.op, impl, time_us, provenance)

    def _refusals(
        self, boundary: str, layer: int | None, before: State | None, seen: Set[Op]
    ) -> Iterator[tuple[Op, str]]:
        """Offered ops that no plan can use here and that were not `seen` yet, with the reason."""
        for refused in self._planner.builder.rejections(boundary, layer, before):
            if refused.op.pieces is None:  # what is refused is so in any number of pieces
                yield refused.op, refused.reason
        free = self._planner.graph(_FREE)
        cut, place = {replace(op, pieces=None) for op in seen}, (layer, boundary)
        wide = Pricer(self._planner.builder, any_size=True)
        swaps = Swaps(free, free, self._plan, place, wide, self._tokens)
        for op in dict.fromkeys(edge.op for edge in edges_at(free, boundary, layer)):
            if op not in seen and replace(op, pieces=None) not in cut:
                yield op, why_absent(self._planner, self._plan, place, op, swaps.plan(op), self._tokens)

    def _alternatives(self, boundary: str, layer: int | None) -> list[tuple[Edge, Plan, str]]:
        """Each op that some plan can have here, with the plan that has it and is otherwise as chosen, and what speaks
        against it."""
        free = self._planner.graph(_FREE)
        try:
            graph = self._planner.graph()
        except NoLegalPlanError:
            graph = free
        allowed = {edge.op for edge in edges_at(graph, boundary, layer)}
        found: list[tuple[Edge, Plan, str]] = []
        pricer, tokens = self._planner.pricer, self._tokens
        swaps = [Swaps(around, free, self._plan, (layer, boundary), pricer, tokens) for around in (graph, free)]
        for op in self._in_best_pieces(edges_at(free, boundary, layer), edge_at(self._plan, boundary, layer).op):
            for around in swaps:  # without the policy where it leaves no way around the op
                plan = around.plan(op)
                if plan is not None:
                    why = self._over_budget(plan) if op in allowed else self._why(op, (layer, boundary), plan)
                    found.append((edge_at(plan, boundary, layer), plan, why))
                    break
        return found

    def _in_best_pieces(self, edges: list[Edge], chosen: Op) -> list[Op]:
        """The ops of some edges, each in as many pieces as are best for it; the chosen one in any number."""
        times = {e.op: sum(self._planner.costs.estimate(t, self._tokens).total_us for t in e.terms) for e in edges}
        best: dict[Op, Op] = {}
        for op in times:
            whole = op if replace(op, pieces=chosen.pieces) == chosen else replace(op, pieces=None)
            best[whole] = min(best.get(whole, op), op, key=times.__getitem__)
        return list(best.values())

    def _over_budget(self, plan: Plan) -> str:
        """Empty, or what a plan's quantised sums add up to where that is above the budget."""
        found = self._planner.over_budget(plan)
        if not found:
            return ""
        numerics, field = self._planner.setup.deployment.numerics, self._planner.graph().damage.field
        return f"its plan has {found}, over numerics.{field} {getattr(numerics, field):g}"

    def _why(self, op: Op, place: Place, plan: Plan) -> str:
        """Why the policy refuses a plan with an op that the algebra and the executor would allow."""
        before = edge_at(plan, place[1], place[0]).before
        return rejection(self._planner, place, op, before) or why_not_around(self._planner, plan, place)

    def _option(self, edge: Edge, plan: Plan, layer: int | None, why: str) -> Option:
        breakdown, source = self._breakdown(edge)
        step = self._planner.step_us(plan, self._tokens)
        slower = step - self._step_us
        legal = why in ("", "chosen")
        if legal:
            reason = why or describe_difference(slower, self._step_us) + self._why_kept(slower)
        else:
            reason = f"{why} ({describe_difference(slower, self._step_us)})"
        around = {} if layer is None else {e.boundary: str(e.op) for e in plan.layers[layer]}
        return Option(
            op=edge.op,
            impl=(edge.op.impl or self._planner.setup.hardware.backend) if edge.op.kind.is_collective else None,
            numerics=edge.numerics,
            legal=legal,
            reason=reason,
            time_us=sum(breakdown.values()),
            breakdown=breakdown,
            source=source or collective_provenance(self._planner, plan, self._tokens),
            step_us=step,
            slower_by_us=slower,
            neighbours=around,
            wire_contains=self._wire_contains(edge.op),
        )

    def _why_kept(self, slower_us: float) -> str:
        """Which rule kept the chosen op although another is faster at this very count."""
        if slower_us >= -_AS_FAST_US:
            return ""
        if self._edited:
            return ": the strategy file has the other op"
        if -slower_us > self._lost_us + _AS_FAST_US:
            return (
                ": in one layer beside another op in the next, which wins in the host's model alone; a plan does not "
                "alternate for that"
            )
        tolerance = self._planner.setup.deployment.search.range_tolerance
        why = f" at {self._tokens} tokens: one plan serves {self._served}"
        if self._lost_us <= tolerance * self._step_us:
            return f"{why}, and may lose {tolerance:.2%} (search.range_tolerance)"
        return f"{why}, and the counts beside this one want another"

    @cached_property
    def _lost_us(self) -> float:
        """By how much the plan is slower than what this count would get alone."""
        return max(0.0, self._step_us - self._planner.step_us(self._planner.alone(self._tokens), self._tokens))

    def _wire_contains(self, op: Op) -> tuple[str, ...]:
        impl = self._planner.setup.executor.impls[op.impl] if op.impl else None
        if impl is None or impl.kind != "one_kernel":
            return ()
        parts = (("quantize", op.kind.is_quantized), ("norm", impl.fuses_norm))
        return tuple(part for part, is_inside in parts if is_inside)

    def _breakdown(self, edge: Edge) -> tuple[dict[str, float], str]:
        """us by category, launches apart, and where the wire time comes from."""
        parts = dict.fromkeys((*CATEGORIES, "launches"), 0.0)
        source = ""
        for term in edge.terms:
            estimate: Estimate = self._planner.costs.estimate(term, self._tokens)
            parts[term.category] += estimate.time_us
            parts["launches"] += estimate.launch_us
            if estimate.wire_bytes and not source:
                source = f"{estimate.provenance}: {estimate.source}"
        return {f"{name}_us": value for name, value in parts.items()}, source


def describe_difference(slower_us: float, step_us: float) -> str:
    """`slower by 12.3 us a step (0.4 %)`, or faster, or as fast."""
    if abs(slower_us) < _AS_FAST_US:
        return "as fast"
    word = "slower" if slower_us > 0 else "faster"
    return f"{word} by {abs(slower_us):,.1f} us a step ({abs(slower_us) / step_us:.2%})"


def check_place(boundary: str, layer: int | None, num_layers: int) -> None:
    """Raise InputError for a boundary or layer that does not exist."""
    if boundary not in BOUNDARIES:
        raise InputError(f"no such boundary; {did_you_mean(boundary, BOUNDARIES)}", field="boundary", value=boundary)
    if boundary in FORWARD_BOUNDARIES:
        if layer is not None:
            raise InputError(f"{boundary} belongs to no layer: leave the layer out", field="layer", value=layer)
        return
    if layer is None:
        raise InputError(f"{boundary} belongs to a layer: name one", field="layer")
    if not 0 <= layer < num_layers:
        raise InputError(f"the model's layers are 0-{num_layers - 1}", field="layer", value=layer)


def edge_at(plan: Plan, boundary: str, layer: int | None) -> Edge:
    """The edge of a plan at a place."""
    if layer is None:
        return plan.embed_out if boundary == "embed_out" else plan.head_in
    return plan.layers[layer][LAYER_BOUNDARIES.index(boundary)]


def edges_at(graph: ForwardGraph, boundary: str, layer: int | None) -> list[Edge]:
    """Every edge of a graph at a place."""
    return [edge for edges in boundary_at(graph, (layer, boundary)).values() for edge in edges]
