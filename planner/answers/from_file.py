"""A strategy file's ops as a priced plan of a setup, so that files can be explained and compared."""

from __future__ import annotations

from dataclasses import replace

from ..search.graph import Edge, ForwardGraph, Plan, Restriction
from ..search.offers import needless
from ..search.planning import ModePlanner
from ..search.swap import Place
from ..strategy.errors import InputError
from ..strategy.file import StrategyFile
from ..strategy.file.legality import field_of, places
from ..strategy.layout import State
from ..strategy.ops import Op
from .made_for import contradictions, refuse_other_model
from .refusals import rejection


def plan_of(planner: ModePlanner, strategy: StrategyFile, tokens: int, file: str) -> tuple[Plan, tuple[int, int]]:
    """The plan that a file holds for a token count, and its range; InputError if it was made for something else."""
    setup = planner.setup
    refuse_other_model(strategy, setup, file)
    for contradiction in contradictions(strategy, setup):
        raise contradiction.in_file(file)
    if strategy.hardware.backend != setup.hardware.backend:
        raise InputError(
            f"made for another library than {setup.hardware.name} has, {setup.hardware.backend}",
            file=file,
            field="hardware.backend",
            value=strategy.hardware.backend,
        )
    for name in ("tp", "attn_dp", "ep", "moe_backend", "pp"):
        planned, wanted = getattr(strategy.parallelism, name), getattr(setup.parallelism, name)
        if planned != wanted:
            raise InputError(f"the deployment has {wanted}", file=file, field=f"parallelism.{name}", value=planned)
    try:
        chosen = strategy.range_of(planner.mode, tokens)
    except LookupError as error:
        raise InputError(str(error), file=file, field=f"modes.{planner.mode}") from None
    graph = planner.graph(Restriction(policy=False))
    state: State | None = None
    edges: list[Edge] = []
    for layer, boundary, op in places(chosen):
        edge = _edge(graph, layer, boundary, replace(op, producer=None), state)
        if edge is None:
            raise InputError(
                _why_not(planner, (layer, boundary), op, state),
                file=file,
                field=field_of(f"modes.{planner.mode}[{strategy.modes[planner.mode].index(chosen)}]", layer, boundary),
                value=str(op),
            )
        edges.append(edge)
        state = edge.after
    return Plan.of(edges), (chosen.first, chosen.last)


def _why_not(planner: ModePlanner, place: Place, op: Op, state: State | None) -> str:
    setup = planner.setup
    layer, boundary = place
    mlp = setup.model.mlp_kind(layer) if layer is not None else "dense"
    can, p, architecture = setup.executor.can, setup.parallelism, setup.model.architecture
    if why := can.refusal(boundary, op, planner.mode, mlp, p, architecture=architecture):
        return why
    if why := rejection(planner, place, op, state):
        return why
    impl = setup.executor.impls.get(op.impl or "")
    if impl is not None and (why := needless(str(op.impl), setup)):
        return why
    if impl is not None and impl.needs_table and setup.hardware.vendor in impl.vendors:
        return f"no calibration of {setup.hardware.name} has a table of this op by {op.impl}: run commplan calibrate"
    return f"executor {setup.executor.name} on {setup.hardware.name} cannot run this op"


def _edge(graph: ForwardGraph, layer: int | None, boundary: str, op: Op, state: State | None) -> Edge | None:
    if layer is None:
        by_state = graph.embed_out if boundary == "embed_out" else graph.head_in
    else:
        by_state = graph.layers[layer].boundaries[boundary]
    backend = graph.setup.hardware.backend
    wanted = replace(op, impl=None if op.impl == backend else op.impl)
    for edge in by_state.get(state, ()):
        if edge.op == wanted or replace(edge.op, group=None) == wanted:
            return edge
    return None
