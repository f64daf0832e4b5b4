"""How far each wire format would bring a step towards one without communication, errors and permissions aside.

The sums of plain all-reduce are exchanged for sums in a format, each by the impl, the algorithm and the number of
pieces that the search would take; what is not quantised (the embedding, the rows that need logits) stays. Plain INT4 is
told too: where nothing offers it, as the bound that it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..answers.breakdown import breakdown
from ..search.graph import Edge, Plan
from ..search.planning import ModePlanner
from ..strategies import offered_formats
from ..strategy.impl_rules import RESIDUAL_OUT
from ..strategy.op_kinds import INT8_ALL_REDUCE, QUANTIZED_ALL_REDUCE
from ..strategy.ops import Op
from ..strategy.words import MlpKind, ScaleGroup

_WIRES = ("int8", "int6", "int4_spikes", "int4")
_BOUND: tuple[str, ScaleGroup] = ("int4", "64")


@dataclass(frozen=True)
class Reached:
    """A format with its step, the share of the way from plain all-reduce to no communication, and its error of a sum.

    is_bound  nothing offers it here
    is_listed  numerics.wire_formats has it
    """

    wire: str
    group: ScaleGroup
    words: str
    step_us: float
    share: float
    error: float
    is_bound: bool
    is_listed: bool


def reached(planner: ModePlanner, tokens: int) -> tuple[float, float, list[Reached]]:
    """(step of plain all-reduce, step without communication, what each format reaches); no format where the executor
    sends none here."""
    plain = planner.plain(tokens)
    whole = planner.step_us(plain, tokens)
    least = whole - breakdown(planner, plain, tokens).parts["communication"]
    offered = [(wire, group) for each in _WIRES for wire, group in offered_formats() if wire == each]
    found = [r for wire, group in offered if (r := _reached(planner, plain, tokens, (whole, least), wire, group))]
    if not any(each.wire == _BOUND[0] for each in found):
        bound = _reached(planner, plain, tokens, (whole, least), *_BOUND, is_bound=True)
        found += [bound] if bound is not None else []
    return whole, least, found


def _reached(
    planner: ModePlanner,
    plain: Plan,
    tokens: int,
    ends: tuple[float, float],
    wire: str,
    group: ScaleGroup,
    is_bound: bool = False,
) -> Reached | None:
    """What a format reaches between the ends; None where no sum can travel in it."""
    whole, least = ends
    plan = _exchanged(planner, plain, tokens, wire, group)
    if plan is None or whole <= least:
        return None
    size, listed = planner.setup.parallelism.attn_tp, planner.setup.deployment.numerics.wire_formats
    sums = [edge.op for edge in plan.edges if edge.op.kind.is_quantized]
    step, words = planner.step_us(plan, tokens), sums[0].wire.words if sums[0].wire is not None else wire
    error = max(op.error.at(size) for op in sums if op.error is not None)
    return Reached(wire, group, words, step, (whole - step) / (whole - least), error, is_bound, wire in listed)


def _exchanged(planner: ModePlanner, plan: Plan, tokens: int, wire: str, group: ScaleGroup) -> Plan | None:
    """The plan with every sum that can be in a format; None where none can."""
    known: dict[tuple[Edge, MlpKind], Edge] = {}
    kind_of = planner.setup.model.mlp_kind

    def exchanged(edge: Edge, mlp: MlpKind) -> Edge:
        if (edge, mlp) not in known:
            found = _in_format(planner, edge, mlp, wire, group)
            known[edge, mlp] = min(found, key=lambda e: _us(planner, e, tokens), default=edge)
        return known[edge, mlp]

    layers = tuple(tuple(exchanged(e, kind_of(number)) for e in edges) for number, edges in enumerate(plan.layers))
    found = Plan(plan.embed_out, layers, plan.head_in)
    return found if any(edge.op.kind.is_quantized for edge in found.edges) else None


def _in_format(planner: ModePlanner, edge: Edge, mlp: MlpKind, wire: str, group: ScaleGroup) -> Iterator[Edge]:
    """The sums in a format that may stand in the place of a plain one."""
    if edge.boundary not in RESIDUAL_OUT or not edge.op.kind.is_plain:
        return
    kind = INT8_ALL_REDUCE if group == "token" else QUANTIZED_ALL_REDUCE
    for algorithm in kind.algorithms:
        op = Op(kind.name, algorithm=algorithm, group=edge.op.group)
        if kind.wires:
            op = Op(op.name, algorithm, edge.op.group, wire_name=wire, scale_group=group)
        yield from planner.builder.in_place_of(edge, op, mlp)


def _us(planner: ModePlanner, edge: Edge, tokens: int) -> float:
    return sum(planner.costs.estimate(term, tokens).total_us for term in edge.terms)
