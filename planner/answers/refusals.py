"""Why an op that the algebra and the executor would allow stands in no plan at a place, or only in one that is refused.

A plan can fail at another boundary than the one asked about: what would have to stand there is then named, with its own
reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..search.graph import Edge, Plan
from ..search.planning import ModePlanner
from ..search.swap import Place
from ..strategy.layout import LAYER_BOUNDARIES, State
from ..strategy.ops import Op

NOWHERE = "no legal plan goes on from the layouts it leaves"


def why_absent(planner: ModePlanner, plan: Plan, place: Place, op: Op, found: Plan | None, tokens: int) -> str:
    """Why no plan at this token count has an op that stands in the graph of all that the executor can run. `found`:
    the plan that has it where messages and memory may be of any size."""
    if found is None:
        return rejection(planner, place, op, _before(plan, place)) or NOWHERE
    refused = ((where, edge, planner.pricer.unfit(edge, tokens)) for where, edge in _nearest_first(found, place))
    for where, edge, why in refused:
        if why is not None:
            return why if where == place else f"needs {edge.op} at {_words(where)}: {why}"
    return NOWHERE


def why_not_around(planner: ModePlanner, plan: Plan, place: Place) -> str:
    """Which op of a plan the policy refuses, beside the one at a place that it would allow."""
    for where, edge in _nearest_first(plan, place):
        if where != place and (why := rejection(planner, where, edge.op, edge.before)):
            return f"needs {edge.op} at {_words(where)}: {why}"
    return "the policy leaves no plan around it"


def rejection(planner: ModePlanner, place: Place, op: Op, before: State | None) -> str | None:
    """Why an op may not stand at a place after a state, or None where it may or is not offered."""
    layer, boundary = place
    return next((r.reason for r in planner.builder.rejections(boundary, layer, before) if same(r.op, op)), None)


def same(a: Op, b: Op) -> bool:
    """Equal but for a group that one of them leaves to the layouts."""
    return a == b or (None in (a.group, b.group) and replace(a, group=None) == replace(b, group=None))


def _before(plan: Plan, place: Place) -> State | None:
    return next(edge.before for where, edge in _places(plan) if where == place)


def _places(plan: Plan) -> Iterator[tuple[Place, Edge]]:
    yield (None, "embed_out"), plan.embed_out
    for index, edges in enumerate(plan.layers):
        for name, edge in zip(LAYER_BOUNDARIES, edges, strict=True):
            yield (index, name), edge
    yield (None, "head_in"), plan.head_in


def _nearest_first(plan: Plan, place: Place) -> list[tuple[Place, Edge]]:
    """The places of a plan, by how many boundaries lie between them and the one asked about."""
    places = list(_places(plan))
    here = next(index for index, (where, _) in enumerate(places) if where == place)
    order = sorted(range(len(places)), key=lambda index: (abs(index - here), index))
    return [places[index] for index in order]


def _words(place: Place) -> str:
    layer, boundary = place
    return boundary if layer is None else f"{boundary} of layer {layer}"
