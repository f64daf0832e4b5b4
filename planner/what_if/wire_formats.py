"""How far each wire format would bring a step towards one without communication, errors and permissions aside.

The sums of plain all-reduce are exchanged for composed ones in a format, each by its cheapest algorithm in its best
number of pieces; what is not quantised (the embedding, the rows that need logits) stays. Plain INT4 is told too, as the
bound that it is: nothing offers it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..answers.breakdown import breakdown
from ..search.graph import Edge, Plan
from ..search.offers import PIECES
from ..search.planning import ModePlanner
from ..strategy.executor_file import RESIDUAL_OUT
from ..strategy.op_kinds import INT8_ALL_REDUCE, QUANTIZED_ALL_REDUCE
from ..strategy.ops import Op
from ..strategy.words import ScaleGroup

_FORMATS: tuple[tuple[str, ScaleGroup], ...] = (
    ("int8", "token"),
    ("int8", "64"),
    ("int6", "64"),
    ("int4_spikes", "64"),
    ("int4", "64"),
)
_BOUNDS = ("int4",)


@dataclass(frozen=True)
class Reached:
    """A format with its step, the share of the way from plain all-reduce to no communication, and its error of a sum.

    is_bound  nothing offers it
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
    composes none here."""
    plain = planner.plain(tokens)
    whole = planner.step_us(plain, tokens)
    least = whole - breakdown(planner, plain, tokens).parts["communication"]
    listed, found = planner.setup.deployment.numerics.wire_formats, []
    size = planner.setup.parallelism.attn_tp
    for wire, group in _FORMATS:
        plan = _exchanged(planner, plain, tokens, wire, group)
        if plan is None or whole <= least:
            continue
        sums = [edge.op for edge in plan.edges if edge.op.kind.is_quantized]
        step, words = planner.step_us(plan, tokens), sums[0].wire.words if sums[0].wire is not None else wire
        errors = [op.error.at(size) for op in sums if op.error is not None]
        about = (step, (whole - step) / (whole - least), max(errors), wire in _BOUNDS, wire in listed)
        found.append(Reached(wire, group, words, *about))
    return whole, least, found


def _exchanged(planner: ModePlanner, plan: Plan, tokens: int, wire: str, group: ScaleGroup) -> Plan | None:
    """The plan with every sum that can be in a format; None where none can."""
    known: dict[Edge, Edge] = {}

    def exchanged(edge: Edge) -> Edge:
        if edge not in known:
            known[edge] = min(
                _composed(planner, edge, wire, group), key=lambda e: _us(planner, e, tokens), default=edge
            )
        return known[edge]

    layers = tuple(tuple(exchanged(edge) for edge in layer) for layer in plan.layers)
    found = Plan(plan.embed_out, layers, plan.head_in)
    return found if any(edge.op.kind.is_quantized for edge in found.edges) else None


def _composed(planner: ModePlanner, edge: Edge, wire: str, group: ScaleGroup) -> Iterator[Edge]:
    """The composed sums of a format that may stand in the place of a plain one."""
    if edge.boundary not in RESIDUAL_OUT or not edge.op.kind.is_plain:
        return
    executor = planner.setup.executor
    kind = INT8_ALL_REDUCE if group == "token" else QUANTIZED_ALL_REDUCE
    impls = executor.ops[kind.name].impls if kind.name in executor.ops else ()
    for impl in (name for name in impls if executor.impls[name].is_composed):
        for algorithm in kind.algorithms:
            for pieces in (None, *PIECES):
                op = Op(kind.name, algorithm=algorithm, group=edge.op.group, impl=impl, pieces=pieces)
                if kind.wires:
                    op = Op(op.name, algorithm, edge.op.group, None, impl, None, wire, group, pieces)
                found = planner.builder.edge(edge.boundary, op, edge.before, edge.shape)
                fits = found is not None and found.after == edge.after and found.op.impl is not None
                if found is not None and fits and not planner.costs.lacks_table(found.terms):
                    yield found


def _us(planner: ModePlanner, edge: Edge, tokens: int) -> float:
    return sum(planner.costs.estimate(term, tokens).total_us for term in edge.terms)
