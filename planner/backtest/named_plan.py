"""A plan named by its ops: they stand on every layer where they are legal, and the rest is as plain as it can be.

The plan is the path through the graph of all ops that any executor-legal plan may use (the deployment's policy has no
say: what was measured was run; by libraries, unless the name says by which other impl) with, in this order:

- the fewest boundaries without the op named for them;
- the least departure from what a forward does that nobody planned: at a boundary that nobody named from no op, or else
  from plain all-reduce and all-gather by the library; of a named op from its impl by the library, where it names none;
- the least time. It is left to choose between ops that are equally plain, never between impls.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ..search.graph import Boundary, Edge, LayerGraph, Plan, Restriction
from ..search.labels import Options, advance, best, close, options_of, start
from ..search.planning import ModePlanner
from ..strategy.layout import LAYER_BOUNDARIES
from ..strategy.ops import Op

_PLAIN, _BY_ANOTHER, _NOT_PLAIN = 1, 10**6, 10**12
_BY_LIBRARIES = Restriction(policy=False, own_kernels=False)
_BY_ANY = Restriction(policy=False)


class AbsentOpError(Exception):
    """A named op stands nowhere in the plan; the text says which, and why."""


def named_plan(planner: ModePlanner, ops: dict[str, Op], tokens: int) -> Plan:
    """The plan that has these ops; AbsentOpError where one of them can stand nowhere."""
    backend, pricer = planner.setup.hardware.backend, planner.pricer
    fronts = start(2)
    options: dict[tuple[str, int], Options] = {}  # of layers that offer the same: once
    for name, segment, boundary in _boundaries(planner, _ran(ops)):
        key = (name, id(boundary))
        if key not in options:
            rank = partial(_rank, wanted=ops.get(name), backend=backend)
            options[key] = options_of(boundary, pricer, tokens, rank)
        fronts = advance(fronts, options[key])
        fronts = fronts if segment is None else close(fronts, pricer.segment(segment, tokens))
    edges = best(fronts)
    if edges is None:
        raise AbsentOpError(f"no plan goes through at {tokens} tokens within the limits of the deployment")
    _check_present(planner, ops, edges)
    return Plan.of(edges)


def _ran(ops: dict[str, Op]) -> Restriction:
    """What may stand in the plan: more than a library's ops where a case names by what its op was done."""
    return _BY_ANY if any(op.impl is not None for op in ops.values()) else _BY_LIBRARIES


def _rank(op: Op, wanted: Op | None, backend: str) -> tuple[int, int]:
    """Whether it is not the op that is named here, and how far it is from what stands here unnamed."""
    missing = wanted is not None and not is_named(op, wanted, backend)
    return int(missing), _departure(op, None if missing else wanted)


def _departure(op: Op, wanted: Op | None) -> int:
    """How far an op is from what stands there unnamed. One that is not plain weighs more than any number that are."""
    if wanted is not None:
        return _BY_ANOTHER * (op.impl is not None and wanted.impl is None)
    if not op.kind.is_collective:
        return 0
    if not op.kind.is_plain:
        return _NOT_PLAIN
    return _PLAIN if op.impl is None else _BY_ANOTHER


def is_named(op: Op, named: Op, backend: str) -> bool:
    """True if `op` is what is named: parameters left out may be anything; the backend's impl may be spelled."""
    spelled = op.impl or backend
    return op.name == named.name and all(
        wanted is None or has == wanted
        for wanted, has in (
            (named.algorithm, op.algorithm),
            (named.wire_name, op.wire_name),
            (named.scale_group, op.scale_group),
            (named.pieces, op.pieces),
            (named.group, op.group),
            (named.residual, op.residual),
            (named.impl, spelled),
        )
    )


def _boundaries(planner: ModePlanner, ran: Restriction) -> Iterator[tuple[str, LayerGraph | str | None, Boundary]]:
    """Name, the segment that ends there, and edges."""
    graph = planner.graph(ran)
    yield "embed_out", "embed_out", graph.embed_out
    for layer in graph.layers:
        for name in LAYER_BOUNDARIES:
            yield name, layer if name == LAYER_BOUNDARIES[-1] else None, layer.boundaries[name]
    yield "head_in", "head_in", graph.head_in


def _check_present(planner: ModePlanner, ops: dict[str, Op], edges: tuple[Edge, ...]) -> None:
    backend = planner.setup.hardware.backend
    for name, wanted in ops.items():
        there = [edge for edge in edges if edge.boundary == name]
        if any(is_named(edge.op, wanted, backend) for edge in there):
            continue
        layer = None if name in ("embed_out", "head_in") else len(planner.graph(_ran(ops)).layers) // 2
        before = there[len(there) // 2].before
        reasons = (r.reason for r in planner.builder.rejections(name, layer, before) if is_named(r.op, wanted, backend))
        why = next(reasons, "it does not connect with the other ops that are named, or has no such impl here")
        raise AbsentOpError(f"{wanted} stands nowhere at {name}: {why}")
