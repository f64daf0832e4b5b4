"""The rules of legality a second time, as tables of moves: an independent witness against which the validator is held.

Nothing here is taken from the code under test. A world is what legality depends on; a state is what stands between
two boundaries (layout of the hidden state, layout of the residual, whether a fused op already did the next boundary's
work); `moves` lists every spelling of every op that may stand at a boundary, with the state it leads to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

R, D, S = "replicated", "dp_local", "token_sharded"
LESS_ROWS = {R: 0, D: 1, S: 2}
CLASSES = ("exact", "reordered", "quantized")
IN_LAYER = ("attn_in", "attn_out", "mlp_in", "mlp_out")


@dataclass(frozen=True)
class World:
    """The split, the model, and the loosest class of numerics that the file allows."""

    tp: int
    attn_dp: int = 1
    num_layers: int = 2
    moe_layers: frozenset[int] = frozenset()
    all_to_all: bool = False
    latents: bool = False
    numerics: str = "quantized"

    @property
    def attn_tp(self) -> int:
        return self.tp // self.attn_dp

    @property
    def attention_rows(self) -> str:
        if self.attn_dp == 1:
            return R
        return D if self.attn_tp > 1 else S

    def takes_shards(self, layer: int | None) -> bool:
        """Whether the MLP of a layer takes and returns token shards."""
        return self.tp > 1 and self.all_to_all and layer in self.moe_layers

    def places(self) -> list[tuple[int | None, str]]:
        """Layer and boundary, in the order of the forward."""
        inner = [(layer, boundary) for layer in range(self.num_layers) for boundary in IN_LAYER]
        return [(None, "embed_out"), *inner, (None, "head_in")]


class State(NamedTuple):
    hidden: str
    residual: str
    fused: bool = False


class Op(NamedTuple):
    """An op as a file spells it."""

    name: str
    algorithm: str | None = None
    group: str | None = None
    residual: str | None = None
    producer: str | None = None


Moves = dict[Op, State]


def moves(world: World, layer: int | None, boundary: str, state: State | None) -> Moves:
    """Every legal op at a place, and the state after it."""
    found = _out(world, layer, boundary, state) if boundary.endswith("_out") else _in(world, layer, boundary, state)
    return {op: after for op, after, numerics in found if _allowed(world, numerics)}


def _allowed(world: World, numerics: str) -> bool:
    return CLASSES.index(numerics) <= CLASSES.index(world.numerics)


Found = Iterator[tuple[Op, State, str]]


def _spellings(world: World, group: str) -> tuple[str | None, ...]:
    """A group may be left out; without attention DP the tp group is the one DP group too."""
    return (None, "tp", "attn_tp") if world.attn_dp == 1 else (None, group)


# ---- before attention, MLP and head: rows are gathered, sliced or left -----------------------------------------------


def _in(world: World, layer: int | None, boundary: str, state: State | None) -> Found:
    assert state is not None
    if state.fused and boundary != "head_in":
        yield Op("fused"), State(state.hidden, state.residual), "exact"
        return
    wanted = R
    if boundary == "attn_in" and world.tp > 1:
        wanted = world.attention_rows
    if boundary == "mlp_in" and world.takes_shards(layer):
        wanted = S
    after = State(wanted, state.residual)
    here, there = LESS_ROWS[state.hidden], LESS_ROWS[wanted]
    if here == there:
        yield Op("none"), after, "exact"
    elif here < there:
        yield Op("slice"), after, "exact"
    else:
        group = "attn_dp" if state.hidden == D else "attn_tp" if wanted == D else "tp"
        for spelled in _spellings(world, group):
            yield Op("all_gather", group=spelled), after, "exact"
    if boundary == "attn_in" and world.latents and state.hidden == S and wanted != S:
        group = "attn_tp" if wanted == D else "tp"
        producers = ("embed_out",) if not layer else ("previous.mlp_out", f"{layer - 1}.mlp_out")
        for spelled in _spellings(world, group):
            for producer in producers:
                yield Op("latent_all_gather", group=spelled, producer=producer), after, "reordered"


# ---- after embedding, attention and MLP: a sum is due, and the residual has to keep up -------------------------------


def _out(world: World, layer: int | None, boundary: str, state: State | None) -> Found:
    for op, rows, numerics, can_fold, fused in _sums(world, layer, boundary):
        residual = rows if state is None else state.residual
        if LESS_ROWS[residual] <= LESS_ROWS[rows]:
            yield op, State(rows, rows, fused), numerics
        elif op.name in WITH_RESIDUAL:
            yield op._replace(residual="gather"), State(rows, rows, fused), numerics
            if can_fold:
                yield op._replace(residual="fold"), State(rows, rows, fused), _worse(numerics, "reordered")


WITH_RESIDUAL = {
    "all_reduce",
    "int8_all_reduce",
    "reduce_scatter_all_gather",
    "all_reduce_all_gather",
    "reduce_scatter_all_reduce",
}


def _sums(world: World, layer: int | None, boundary: str) -> Iterator[tuple[Op, str, str, bool, bool]]:
    """Op, rows it leaves, class, whether its sum can carry the residual, whether it does the next boundary's work."""
    mlp = boundary == "mlp_out"
    complete = world.tp == 1 or (world.takes_shards(layer) if mlp else world.attn_tp == 1)
    if complete:
        rows = R if world.tp == 1 else S if mlp else world.attention_rows
        yield Op("none"), rows, "exact", False, False
        return
    rows = world.attention_rows
    for group in _spellings(world, "tp" if mlp else "attn_tp"):
        yield Op("all_reduce", group=group), rows, "exact", True, False
        yield Op("reduce_scatter", group=group), S, "reordered", False, False
        if boundary != "embed_out":
            yield Op("reduce_scatter_all_gather", group=group), rows, "reordered", True, False
            for algorithm in ("gather", "two_shot"):
                yield Op("int8_all_reduce", algorithm, group), rows, "quantized", False, False
    if world.attn_dp > 1 and boundary == "attn_out":
        yield Op("all_reduce", group="tp"), R, "reordered", True, False  # placed in a zero buffer of all rows
        if not world.takes_shards(layer):
            yield Op("all_reduce_all_gather"), R, "reordered", True, True
    if world.attn_dp > 1 and world.attn_tp > 1 and mlp:  # else there is no second axis to fuse with
        yield Op("reduce_scatter_all_reduce"), D, "reordered", True, True


def _worse(a: str, b: str) -> str:
    return max(a, b, key=CLASSES.index)


def is_legal(world: World, ops: list[Op]) -> bool:
    """Whether the ops, in the order of the forward, lead from the embedding to the head."""
    state: State | None = None
    for (layer, boundary), op in zip(world.places(), ops, strict=True):
        found = moves(world, layer, boundary, state)
        if op not in found:
            return False
        state = found[op]
    return True
