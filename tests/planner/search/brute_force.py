"""Every legal plan of a small model, listed one by one: the oracle of the search.

An independent statement of the layout algebra. Nothing of the planner's own layouts, graph, search or composition of
costs is used here. Rows are counted instead of layouts being ranked: a rank holds `tp` shards of the rows (ALL),
`attn_tp` of them (GROUP: those of its DP group) or one (SHARD).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from ...quantised_ops import QUANTISED, WITHOUT_KERNELS, quantised

ALL, GROUP, SHARD = "all rows", "the rows of my DP group", "my shard of the rows"
EXACT, REORDERED, QUANTIZED = range(3)
LAYER = ("attn_in", "attn_out", "mlp_in", "mlp_out")


class Streams(NamedTuple):
    """What a rank holds of the hidden and of the residual stream; `done` if the next boundary's work is done too."""

    hidden: str
    residual: str
    done: bool = False


@dataclass(frozen=True)
class Move:
    """An op where it stands. `group` is the group it really runs over."""

    boundary: str
    name: str
    before: Streams | None
    after: Streams
    algorithm: str | None = None
    group: str | None = None
    residual: str | None = None
    impl: str | None = None
    wire: tuple[str, int] | None = None  # format, and columns of a scale, where the op says them
    moe: bool = False  # the layer's MLP takes and returns shards
    pieces: int | None = None  # into which a composed sum cuts the rows

    @property
    def numerics(self) -> int:
        """Class of the choice."""
        if self.name in QUANTISED:
            return QUANTIZED
        if self.name in ("none", "slice", "fused", "all_gather"):
            return EXACT
        widened = self.boundary == "attn_out" and self.before.hidden != ALL and self.group == "tp"  # type: ignore[union-attr]
        plain = self.name == "all_reduce" and self.algorithm in (None, FEW)
        return EXACT if plain and self.residual != "fold" and not widened else REORDERED

    def text(self, world: World) -> str:
        """As the planner spells it: a group is written only where attention DP gives a choice."""
        spelled = self.group if world.dp > 1 and self.name not in FUSED_OPS else None
        way = {"algorithm": self.algorithm, "pieces": self.pieces}
        given = {**way, "group": spelled, "residual": self.residual, "impl": self.impl}
        if self.wire is not None:  # then `group` is the columns, and the ranks are those that it goes over
            given = {"wire": self.wire[0], "group": self.wire[1], **way, "over": spelled} | {
                key: given[key] for key in ("residual", "impl")
            }
        inside = ", ".join(f"{key}={value}" for key, value in given.items() if value is not None)
        return f"{self.name}({inside})" if inside else self.name


WITH_NORM = ("all_reduce", "int8_all_reduce", "reduce_scatter")  # the residual add and norm in the same kernel
NAMES_ITS_FORMAT = ("quantized_all_reduce",)
FP8 = ("fp8_e4m3", 256)
COMPOSED = "composed_norm"
PIECES = (None, 2, 4, 8)
STAGED = "host_staged_norm"
STAGED_PIECES = (None, 4)  # that were measured
FEW, FEW_ROWS = "one_shot", 512  # in one launch, up to as many rows as were measured
FUSED_OPS = ("all_reduce_all_gather", "reduce_scatter_all_reduce")


@dataclass(frozen=True)
class World:
    """The ranks, the layers, and what the executor can do."""

    tp: int
    layers: int
    dp: int = 1
    latent: bool = False  # MLA with q_lora_rank
    shard_layers: frozenset[int] = frozenset()  # layers whose MLP takes and returns shards: all-to-all MoE
    executor: str = "transformers"
    one_shot: bool = False  # a custom one-shot all-reduce has a table here
    own: bool = False  # every op that commplan's kernels do has a table here
    fp8: bool = False  # FlashInfer's FP8 all-reduce has a table here, and the deployment allows it
    composed: bool = False  # the deployment lets quantised sums be composed around the library
    staged: bool = False  # sums through the host's memory, of rows as they are and in INT8, have tables here
    switched: bool = True  # links through a switch, which fused kernels over more than two ranks want

    @property
    def attn(self) -> int:
        """Ranks of a DP group."""
        return self.tp // self.dp

    def shards(self, rows: str) -> int:
        """How many of the tp shards a rank holds."""
        return {ALL: self.tp, GROUP: self.attn, SHARD: 1}[rows]

    @property
    def attention_rows(self) -> str:
        """What attention works on."""
        if self.dp == 1:
            return ALL
        return GROUP if self.attn > 1 else SHARD

    # ---- what may stand at a boundary ----------------------------------------------------------------------

    def moves(self, boundary: str, layer: int | None, before: Streams | None) -> tuple[Move, ...]:
        """Every move that the algebra and the executor allow."""
        return _moves(self, boundary, layer in self.shard_layers, before)

    def _in(self, boundary: str, before: Streams | None, moe: bool) -> Iterator[Move]:
        assert before is not None
        if before.done and boundary != "head_in":  # the head is no attention: its rows are gathered like any others
            yield Move(boundary, "fused", before, before._replace(done=False), moe=moe)
            return
        wanted = {"attn_in": self.attention_rows, "mlp_in": SHARD if moe else ALL, "head_in": ALL}[boundary]
        if self.tp == 1:
            wanted = before.hidden
        after = Streams(wanted, before.residual)
        have, want = self.shards(before.hidden), self.shards(wanted)
        if have >= want:
            yield Move(boundary, "none" if have == want else "slice", before, after, moe=moe)
            return
        group = "attn_dp" if before.hidden == GROUP else "attn_tp" if wanted == GROUP else "tp"
        for impl in self._impls(boundary, "all_gather", before.hidden):
            yield Move(boundary, "all_gather", before, after, group=group, impl=impl, moe=moe)
        if boundary == "attn_in" and self.latent and before.hidden == SHARD:
            for impl in self._impls(boundary, "latent_all_gather"):
                yield Move(boundary, "latent_all_gather", before, after, group=group, impl=impl, moe=moe)

    def _out(self, boundary: str, before: Streams | None, moe: bool) -> Iterator[Move]:
        for name, algorithm, group, rows, spans in self._sums(boundary, moe):
            short = before is not None and self.shards(before.residual) < self.shards(rows)
            ways: tuple[str | None, ...] = (None,)
            if short:
                ways = ("gather",) if name in QUANTISED else ("fold", "gather")
            for residual in ways:
                for impl in self._impls(boundary, name):
                    after = Streams(rows, rows, spans)
                    wire = FP8 if name in NAMES_ITS_FORMAT else None
                    yield Move(boundary, name, before, after, algorithm, group, residual, impl, wire, moe)
            if self.composed and name in QUANTISED:
                yield from self._composed(Move(boundary, name, before, Streams(rows, rows), algorithm, group), short)
            if self.staged and before and (name, algorithm) in (("int8_all_reduce", "gather"), ("all_reduce", None)):
                move = Move(boundary, name, before, Streams(rows, rows), "gather", group, impl=STAGED)
                for residual in ways:
                    for pieces in STAGED_PIECES if residual is None else (None,):
                        yield replace(move, residual=residual, pieces=pieces)
                    if name == "all_reduce":
                        yield replace(move, residual=residual, algorithm=FEW)

    def _composed(self, move: Move, short: bool) -> Iterator[Move]:
        """Per token, and by 64 columns where no residual is to be gathered; in pieces there too."""
        move = replace(move, impl=COMPOSED, residual="gather" if short else None)
        for pieces in (None,) if short or self.dp > 1 else PIECES:
            yield replace(move, pieces=pieces)
            if not short:
                yield replace(move, pieces=pieces, name=NAMES_ITS_FORMAT[0], wire=("int8", 64))

    def _sums(self, boundary: str, moe: bool) -> Iterator[tuple[str, str | None, str | None, str, bool]]:
        """(op, algorithm, group, rows that a rank holds afterwards, does the next boundary's work too)."""
        if self.tp == 1:
            yield "none", None, None, ALL, False
            return
        if boundary == "mlp_out" and moe:
            yield "none", None, None, SHARD, False  # the combine of the experts completed the sum
            return
        if boundary != "mlp_out" and self.attn == 1:
            yield "none", None, None, SHARD, False  # a DP group of one rank holds complete rows
            return
        group = "tp" if boundary == "mlp_out" or self.dp == 1 else "attn_tp"
        yield "all_reduce", None, group, self.attention_rows, False
        yield "reduce_scatter", None, group, SHARD, False
        if boundary == "embed_out":
            return
        for name, algorithms in quantised(self.executor).items():
            if name in NAMES_ITS_FORMAT:
                continue
            for algorithm in algorithms:
                yield name, algorithm, group, self.attention_rows, False
        if self.fp8:
            yield NAMES_ITS_FORMAT[0], "two_shot", group, self.attention_rows, False
        yield "reduce_scatter_all_gather", None, group, self.attention_rows, False
        if self.dp == 1:
            return
        if boundary == "attn_out":
            yield "all_reduce", None, "tp", ALL, False  # placed in a zero buffer of all rows
            if not moe:
                yield "all_reduce_all_gather", None, "tp", ALL, True
        elif self.attn > 1:
            yield "reduce_scatter_all_reduce", None, "tp", GROUP, True

    def _impls(self, boundary: str, name: str, rows: str = ALL) -> tuple[str | None, ...]:
        """Who performs an op under the executor; None is the backend's library."""
        if name == "none":
            return (None,)
        if self.executor == "plan_only":
            if name in NAMES_ITS_FORMAT:
                return ("flashinfer_fp8",)  # a table shows that it ran here, whatever the links
            if not self.switched and self.tp > 2:
                return () if name in FUSED_OPS else (None,)
            if name in FUSED_OPS:
                return ("flashinfer_mixed",)
            both = {("mlp_in", "all_gather"), ("head_in", "all_gather"), ("mlp_out", "reduce_scatter")}
            return (None, "flashinfer_mixed") if (boundary, name) in both and self.dp > 1 else (None,)
        if self.executor == "sglang":
            able = {"all_reduce", *quantised("sglang"), "reduce_scatter_all_gather", "all_gather"}
            able |= {*FUSED_OPS} if self.dp > 1 else {"latent_all_gather"}
            if self.dp == 1 or boundary != "embed_out":
                able.add("reduce_scatter")
            at_head = boundary == "head_in" and self.attn > 1  # takes complete rows, or those of whole DP groups
            if name not in able or (at_head and rows == SHARD):
                return ()
            return (None, "custom_one_shot") if name == "all_reduce" and self.one_shot and self.dp == 1 else (None,)
        if not self.own or name in ("reduce_scatter_all_gather", *WITHOUT_KERNELS):
            return (None,)
        with_norm = name in WITH_NORM and boundary in ("attn_out", "mlp_out")
        return (None, "commplan_triton", *(("commplan_triton_norm",) if with_norm else ()))

    # ---- whole forwards ------------------------------------------------------------------------------------

    def plans(self) -> Iterator[tuple[Move, ...]]:
        """Every legal sequence of moves from embed_out to head_in."""
        steps: list[tuple[str, int | None]] = [("embed_out", None)]
        steps += [(boundary, layer) for layer in range(self.layers) for boundary in LAYER]
        steps.append(("head_in", None))
        stack: list[tuple[Move, ...]] = [()]
        while stack:
            taken = stack.pop()
            if len(taken) == len(steps):
                yield taken
                continue
            before = taken[-1].after if taken else None
            stack.extend((*taken, move) for move in self.moves(*steps[len(taken)], before))


@cache
def _moves(world: World, boundary: str, moe: bool, before: Streams | None) -> tuple[Move, ...]:
    return tuple(world._out(boundary, before, moe) if boundary.endswith("_out") else world._in(boundary, before, moe))


@cache
def listed(world: World) -> dict[tuple[str, ...], tuple[Move, ...]]:
    """Every legal plan by its ops as the planner spells them."""
    spelled: dict[Move, str] = {}
    found = {}
    for plan in world.plans():
        for move in plan:
            if move not in spelled:
                spelled[move] = move.text(world)
        found[tuple(spelled[move] for move in plan)] = plan
    gc.freeze()  # all this stays: looked through at every collection, it makes whatever runs next many times slower
    return found
