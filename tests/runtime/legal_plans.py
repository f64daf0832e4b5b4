"""Every legal sequence of ops, by a statement of the layout algebra of its own: nothing of commplan's layouts is used.

The rules are written as what each boundary receives and what each op makes of it. Rows per rank, most first:
ALL (every row), GROUP (the rows of my DP group) and SHARD (1/tp of the rows).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from commplan.planner.strategy.ops import Op

from ..quantised_ops import NAMES_FORMAT, QUANTISED, quantised

ALL, GROUP, SHARD = 0, 1, 2
LAYER_BOUNDARIES = ("attn_in", "attn_out", "mlp_in", "mlp_out")
NONE, SLICE, FUSED = Op("none"), Op("slice"), Op("fused")


class Streams(NamedTuple):
    """Rows that a rank holds of both streams; `spanned`: the op before does this one's work."""

    hidden: int
    residual: int
    spanned: bool = False


@dataclass(frozen=True)
class World:
    """Ranks and model. `sharded_mlps`: the layers whose MLP takes and returns shards (all-to-all MoE).

    `spanning_norms`: queries and keys are normed over the heads of all ranks, by a sum within the attention.
    `streams`: of the residual; no sum carries several.
    """

    tp: int
    attn_dp: int = 1
    latent: bool = False
    layers: int = 2
    sharded_mlps: frozenset[int] = field(default_factory=frozenset)
    spanning_norms: bool = False
    streams: int = 1

    @property
    def attn_tp(self) -> int:
        """Ranks of a DP group."""
        return self.tp // self.attn_dp

    @property
    def attention(self) -> int:
        """Rows that attention works on."""
        return ALL if self.attn_dp == 1 else GROUP if self.attn_tp > 1 else SHARD

    def group(self, name: str) -> str | None:
        """A group as files spell it: not at all without attention DP."""
        return None if self.attn_dp == 1 else name

    @property
    def places(self) -> list[tuple[int | None, str]]:
        """(layer, boundary) in the order of a forward."""
        inside: list[tuple[int | None, str]] = [(n, b) for n in range(self.layers) for b in LAYER_BOUNDARIES]
        return [(None, "embed_out"), *inside, (None, "head_in")]


@dataclass(frozen=True)
class Edge:
    """An op between two states of the streams, at a boundary of a layer that is or is not a sharded MoE."""

    boundary: str
    op: Op
    before: Streams | None
    after: Streams
    sharded_mlp: bool


Plan = tuple[Edge, ...]


@cache
def edges(world: World, place: tuple[int | None, str], before: Streams | None) -> tuple[Edge, ...]:
    """Every legal op at a place."""
    layer, boundary = place
    sharded = layer in world.sharded_mlps
    if boundary in ("attn_in", "mlp_in", "head_in"):
        assert before is not None
        found = _in(world, layer, boundary, before, sharded)
    else:
        found = _out(world, boundary, before, sharded)
    return tuple(Edge(boundary, op, before, after, sharded) for op, after in found)


def _in(world: World, layer: int | None, boundary: str, before: Streams, sharded: bool) -> Iterator[tuple[Op, Streams]]:
    if before.spanned and boundary != "head_in":
        yield FUSED, before._replace(spanned=False)
        return
    wanted = {"attn_in": world.attention, "mlp_in": SHARD if sharded else ALL, "head_in": ALL}[boundary]
    after = Streams(wanted, before.residual)
    if before.hidden == wanted:
        yield NONE, after
    elif before.hidden < wanted:
        yield SLICE, after
    else:
        across = "attn_dp" if before.hidden == GROUP else "attn_tp" if wanted == GROUP else "tp"
        yield Op("all_gather", group=world.group(across)), after
        if boundary == "attn_in" and world.latent:
            producer = "previous.mlp_out" if layer else "embed_out"
            yield Op("latent_all_gather", group=world.group(across), producer=producer), after


def _out(world: World, boundary: str, before: Streams | None, sharded: bool) -> Iterator[tuple[Op, Streams]]:
    if world.tp == 1:
        yield NONE, Streams(ALL, ALL)
        return
    if boundary == "mlp_out" and sharded:
        yield NONE, Streams(SHARD, SHARD)  # the experts' combine has completed the sum
        return
    if boundary != "mlp_out" and world.attn_tp == 1:
        yield NONE, Streams(world.attention, world.attention)  # heads and vocabulary are whole
        return
    own = world.group("tp" if boundary == "mlp_out" else "attn_tp")
    sums = [(Op("all_reduce", group=own), world.attention), (Op("reduce_scatter", group=own), SHARD)]
    if boundary != "embed_out":
        for name, algorithms in quantised("transformers").items():
            if name not in NAMES_FORMAT:  # the library sums in one format alone
                sums += [(Op(name, algorithm=a, group=own), world.attention) for a in algorithms]
        sums += [(Op("reduce_scatter_all_gather", group=own), world.attention)]
    if boundary == "attn_out" and world.attn_dp > 1:
        sums += [(Op("all_reduce", group="tp"), ALL)]  # in a buffer of all rows
        sums += [(Op("all_reduce_all_gather"), ALL)] if not sharded else []
    if boundary == "mlp_out" and world.attn_dp > 1 and world.attn_tp > 1:
        sums += [(Op("reduce_scatter_all_reduce"), GROUP)]
    for op, rows in sums:
        after = Streams(rows, rows, op.name in ("all_reduce_all_gather", "reduce_scatter_all_reduce"))
        if before is None or before.residual <= rows:
            yield op, after
            continue
        for rule in ("fold", "gather"):  # the residual lacks rows that the sum brings
            if rule == "gather" or (op.name not in QUANTISED and world.streams == 1):
                yield Op(op.name, op.algorithm, op.group, rule), after


# ---- whole forwards ----------------------------------------------------------------------------------------------


def all_plans(world: World, *, quantized: bool = True) -> Iterator[Plan]:
    """Every legal sequence, depth first."""

    def extend(taken: Plan) -> Iterator[Plan]:
        if len(taken) == len(world.places):
            yield taken
            return
        for edge in edges(world, world.places[len(taken)], taken[-1].after if taken else None):
            if quantized or not is_quantized(edge):
                yield from extend((*taken, edge))

    return extend(())


def all_edges(world: World, *, quantized: bool = True) -> set[Edge]:
    """Every edge that some legal sequence uses. No sequence ends early: every state has an op that goes on."""
    found: set[Edge] = set()
    states: set[Streams | None] = {None}
    for place in world.places:
        here = {e for state in states for e in edges(world, place, state) if quantized or not is_quantized(e)}
        found |= here
        states = {e.after for e in here}
    return found


def is_quantized(edge: Edge) -> bool:
    return edge.op.name == "int8_all_reduce"


def random_plan(world: World, rng: random.Random, wanted: Iterable[Edge] = (), *, quantized: bool = False) -> Plan:
    """A random legal sequence; where an edge of `wanted` is in reach of one step, it is taken."""
    prefer = set(wanted)
    taken: list[Edge] = []
    for place in world.places:
        here = edges(world, place, taken[-1].after if taken else None)
        here = tuple(e for e in here if quantized or not is_quantized(e))
        taken.append(rng.choice([e for e in here if e in prefer] or here))
    return tuple(taken)


def covering_plans(world: World, least: int, seed: int = 0, *, quantized: bool = False) -> list[Plan]:
    """At least `least` different random plans that together use every edge."""
    rng = random.Random(seed)
    missing = all_edges(world, quantized=quantized)
    plans: list[Plan] = []
    for _ in range(10_000):
        if not missing and len(plans) >= least:
            break
        plan = random_plan(world, rng, missing, quantized=quantized)
        if plan not in plans and (not missing or missing & set(plan)):
            plans.append(plan)
            missing -= set(plan)
    assert not missing, f"unreached by random walks: {missing}"
    return plans


def preferring(world: World, by_layer: tuple[tuple[str, ...], ...]) -> Plan:
    """The plan that takes, in each layer, the first op of a list of names that is legal there."""
    taken: list[Edge] = []
    for layer, boundary in world.places:
        names = by_layer[layer if layer is not None else -1 if boundary == "head_in" else 0]
        here = [e for e in edges(world, (layer, boundary), taken[-1].after if taken else None) if not is_quantized(e)]
        taken.append(min(here, key=lambda e: names.index(e.op.name) if e.op.name in names else len(names)))
    return tuple(taken)
