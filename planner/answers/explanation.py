"""Why this op here? Every op that any strategy offers at a boundary, with its cost or with the reason it may not stand.

An alternative is judged by the chosen plan with this one op exchanged, and the fewest other changes that the layouts
demand, because an op changes what its neighbours see. Its step time says what the exchange really costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..cost.estimate import Estimate
from ..search.graph import ERROR_UNIT, Edge, ForwardGraph, Plan, Restriction
from ..search.planning import ModePlanner
from ..search.swap import swapped
from ..strategy.errors import InputError, NoLegalPlanError, did_you_mean
from ..strategy.layout import BOUNDARIES, FORWARD_BOUNDARIES, LAYER_BOUNDARIES, State
from ..strategy.ops import Op
from ..strategy.words import CATEGORIES, LaunchState, Numerics
from .to_file import collective_provenance


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Explanation:
    """The chosen op and every other one, at one boundary of one forward."""

    mode: str
    tokens: int
    layer: int | None
    boundary: str
    chosen: Option
    alternatives: list[Option]
    launch: LaunchState = "graph"
    host_wait_us: float = 0.0  # of the whole step under the plan
    compute_factor: float = 1.0  # how much longer than modelled takes what is not communication, by a measured step


_FREE = Restriction(policy=False)


class Explainer:
    """Explains the choices of one forward mode at one token count. `plan` is what was chosen there."""

    def __init__(self, planner: ModePlanner, tokens: int, plan: Plan) -> None:
        self._planner, self._tokens, self._plan = planner, tokens, plan
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
        for op, reason in self._refusals(boundary, layer, edge.before):
            if not any(_same(op, other) for other in seen):
                seen.add(op)
                alternatives.append(Option(op, op.impl, op.kind.numerics, False, reason, None, {}, "", None, None, {}))
        alternatives.sort(key=lambda o: (not o.legal, o.step_us is None, o.step_us or 0.0, str(o.op)))
        planner = self._planner
        return Explanation(
            planner.mode,
            self._tokens,
            layer,
            boundary,
            chosen,
            alternatives,
            planner.pricer.host.state,
            planner.host_wait_us(self._plan, self._tokens),
            planner.compute_factor(self._tokens),
        )

    def _refusals(self, boundary: str, layer: int | None, before: State | None) -> Iterator[tuple[Op, str]]:
        """Offered ops that no plan can use here, with the reason."""
        for rejection in self._planner.builder.rejections(boundary, layer, before):
            yield rejection.op, rejection.reason
        limit = self._planner.setup.deployment.limits.activation_memory_gb
        why = "no legal plan goes on from the layouts it leaves"
        if limit is not None:
            why = f"{why}, or none within {limit} GB of activation memory"
        for edge in edges_at(self._planner.graph(_FREE), boundary, layer):
            yield edge.op, why

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
        for op in dict.fromkeys(edge.op for edge in edges_at(free, boundary, layer)):
            for around in (graph, free):  # without the policy where it leaves no way around the op
                plan = swapped(around, free, self._plan, (layer, boundary), op, self._planner.pricer, self._tokens)
                if plan is not None:
                    why = self._over_budget(plan) if op in allowed else self._why(op, boundary, layer)
                    found.append((edge_at(plan, boundary, layer), plan, why))
                    break
        return found

    def _over_budget(self, plan: Plan) -> str:
        """Empty, or what a plan's quantised sums add up to where that is above the budget."""
        budget = self._planner.budget
        if budget is None:
            return ""
        weights = self._planner.graph().weights
        total = 0.0
        for index, layer in enumerate(plan.layers):
            by_boundary = dict(zip(("attn_out", "mlp_out"), weights[index] if weights else (1.0, 1.0), strict=True))
            total += sum(e.squared_error * by_boundary.get(e.boundary, 0.0) ** 2 for e in layer)
        if total <= budget:
            return ""
        allowed = self._planner.setup.deployment.numerics.error_budget
        return f"its plan has error {math.sqrt(total / ERROR_UNIT):.4g}, over numerics.error_budget {allowed:g}"

    def _why(self, op: Op, boundary: str, layer: int | None) -> str:
        """Why the policy refuses an op that the algebra and the executor would allow."""
        states = dict.fromkeys(e.before for e in edges_at(self._planner.graph(_FREE), boundary, layer) if e.op == op)
        for state in states:
            for rejection in self._planner.builder.rejections(boundary, layer, state):
                if _same(rejection.op, op):
                    return rejection.reason
        return "the policy leaves no plan around it"

    def _option(self, edge: Edge, plan: Plan, layer: int | None, why: str) -> Option:
        breakdown, source = self._breakdown(edge)
        step = self._planner.step_us(plan, self._tokens)
        slower = step - self._step_us
        legal = why in ("", "chosen")
        if legal:
            reason = why or describe_difference(slower, self._step_us)
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
    if abs(slower_us) < 0.05:
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
    if layer is None:
        by_state = graph.embed_out if boundary == "embed_out" else graph.head_in
    else:
        by_state = graph.layers[layer].boundaries[boundary]
    return [edge for edges in by_state.values() for edge in edges]


def _same(a: Op, b: Op) -> bool:
    """Equal but for a group that one of them leaves to the layouts."""
    return a == b or (None in (a.group, b.group) and replace(a, group=None) == replace(b, group=None))
