"""Every parallelism, layer shape, op and reachable state there is to try the layout algebra on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product

from commplan.planner.strategy.layout import LAYER_BOUNDARIES, IllegalOpError, LayerShape, Parallelism, State, apply
from commplan.planner.strategy.op_kinds import KINDS
from commplan.planner.strategy.ops import GROUPS, RESIDUAL_RULES, Op

PARALLELISMS = tuple(Parallelism(tp, dp) for tp in (1, 2, 4, 8) for dp in (1, 2, 4, 8) if dp <= tp)
SHAPES = tuple(LayerShape(all_to_all, latent) for all_to_all in (False, True) for latent in (False, True))
WORLDS = tuple((p, shape) for p in PARALLELISMS for shape in SHAPES if p.tp > 1 or not shape.all_to_all)


def world_id(world: tuple[Parallelism, LayerShape]) -> str:
    p, shape = world
    return f"tp{p.tp}-dp{p.attn_dp}" + "-a2a" * shape.all_to_all + "-latent" * shape.has_latent


def _ops() -> Iterator[Op]:
    for kind in KINDS.values():
        accepted = {
            "algorithm": kind.algorithms or (None,),
            "group": (None, *GROUPS),
            "residual": (None, *RESIDUAL_RULES),
        }
        given = [key for key in accepted if key in kind.parameters]
        named = Op(kind.name)
        if kind.wires:  # layouts know nothing of formats: one that some kernel sends, in two shots, stands for all
            named = Op(kind.name, wire_name="fp8_e4m3", scale_group="256")
            accepted["algorithm"] = ("two_shot",)
        for values in product(*(accepted[key] for key in given)):
            yield replace(named, **dict(zip(given, values, strict=True)))


OPS = tuple(_ops())


@cache
def legal(boundary: str, state: State | None, p: Parallelism, shape: LayerShape) -> dict[Op, State]:
    """Every op that may stand there, with the state after it."""
    found = {}
    for op in OPS:
        try:
            found[op] = apply(boundary, op, state, shape, p)
        except IllegalOpError:
            continue
    return found


@cache
def reachable(p: Parallelism, shape: LayerShape) -> dict[str, set[State | None]]:
    """States in which a forward arrives at the boundaries of such a layer, behind layers like it or dense ones."""
    arrived: dict[str, set[State | None]] = {"embed_out": {None}}
    front: set[State | None] = set(legal("embed_out", None, p, shape).values())
    dense = replace(shape, all_to_all=False)
    for _ in range(3):
        behind: set[State | None] = set()
        for layer in {dense, shape}:
            states = front
            for boundary in LAYER_BOUNDARIES:
                if layer == shape:
                    arrived.setdefault(boundary, set()).update(states)
                states = {after for state in states for after in legal(boundary, state, p, layer).values()}
            behind |= states
        front = behind
    arrived["head_in"] = front
    return arrived
