"""The forward in progress: which range of the plan holds for it, and what has run.

A server runs a forward eagerly, or captures it once into a graph and replays that. An eager forward counts when it is
done. One outside of serving (a capture, a warm-up) counts nothing, and leaves what it ran under (mode, tokens); a
replay then counts that. A graph may hold the whole forward, or its body alone (embedding, layers and final norm): then
the model's forward runs around each replay, and no op of the body in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from commplan.planner.strategy.file import StrategyFile

from ..bound.bound_ops import BoundIn, BoundOut
from ..bound.counts import Count, Counters
from ..bound.program import Program
from ..bound.sizes import Sizes, sizes_of
from ..errors import BoundaryError
from ..kernels.peers import Make
from .crossing import crosses, follower, sum_add_and_norm

Bind = Callable[[Counters], dict[str, tuple[Program, ...]]]


@dataclass(slots=True)
class Forward:
    """One forward of the model: its range, and the ops that ran so far with the rows that entered them."""

    program: Program
    sizes: Sizes
    executed: list[tuple[Count, int]] = field(default_factory=list)
    unplanned: int = 0
    at_head: bool = False  # the logits travel in the server's own way
    owed: bool = False  # the last layer's sum waits for the final norm
    late: BoundIn | None = None  # attention has a shard of rows, and its latents wait for this gather
    pushed: BoundOut | None = None  # whose rows have been sent while they were made

    @property
    def tokens(self) -> int:
        """Rows of the hidden state over the whole tp group."""
        return self.sizes.total


@dataclass(slots=True)
class RangeCount:
    """Forwards that fell into a range. `idle`: in how many of them this rank's DP group had no rows at all."""

    forwards: int = 0
    tokens: int = 0
    idle: int = 0


class Forwards:
    """All forwards of a scheduler process under one plan. `bind` is called at the first, when there are groups."""

    def __init__(self, file: StrategyFile, bind: Bind) -> None:
        self.file = file
        self.counters = Counters()
        self.by_range: dict[tuple[str, int], RangeCount] = {}
        self.unplanned: dict[str, int] = {}
        self.next_linears: Mapping[tuple[int, str], Any] = {}  # (layer, boundary) to what has the weight behind it
        self.current: Forward | None = None
        self._bind = bind
        self._programs: dict[str, tuple[Program, ...]] | None = None
        self._captured: dict[tuple[str, int], Forward] = {}
        self._live = False
        self._replaying = False
        self._in_embedding = False
        self._in_op = False

    # ---- the range of a forward ------------------------------------------------------------------------------------

    def program(self, mode: str, tokens: int) -> Program:
        """The ops of a forward; raises BoundaryError where a request comes to one that the plan has none for.

        A warm-up may have more tokens than any request, or a mode that this server never serves; it takes what is next.
        """
        programs = self.bind()
        for program in programs.get(mode, ()):
            if program.first <= tokens <= program.last:
                return program
        if not self._live:
            return programs.get(mode, next(iter(programs.values())))[-1]
        try:
            self.file.range_of(mode, tokens)
        except LookupError as error:
            raise BoundaryError(f"{error}; plan again with that range", where=f"{mode}, {tokens} tokens") from None
        raise AssertionError("the programs are those of the file")

    def bind(self) -> dict[str, tuple[Program, ...]]:
        """Programs by mode, made on first use: the server must have its groups."""
        if self._programs is None:
            self._programs = self._bind(self.counters)
        return self._programs

    @contextmanager
    def forward(self, mode: str, own: int, largest: int | None = None) -> Iterator[Forward]:
        """Around a forward of the model, eager or while it is captured. With attention DP `own` are the rows of this
        rank's DP group, `largest` those of the largest."""
        sizes = sizes_of(self.file.parallelism, own, own if largest is None else largest)
        tokens = sizes.total
        self.current = Forward(self.program(mode, tokens), sizes)
        try:
            yield self.current
            if self.current.owed:
                raise BoundaryError("the final norm did not come", where="the last mlp_out")
            self._nothing_late(self.current)
        finally:
            done, self.current = self.current, None
        if self._replaying:
            self._replayed_body(mode, done)
        elif self._live:
            self._count(done)
        else:
            self._captured[mode, tokens] = done

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Around everything that the scheduler runs for requests: only that is counted."""
        self._live = True
        try:
            yield
        finally:
            self._live = False

    def replayed(self, mode: str, tokens: int) -> None:
        """A graph of the whole forward, captured at this many tokens, was replayed."""
        self._count(self._of_graph(mode, tokens))

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Around a forward whose body is the replay of a graph; the forward opens in it as an eager one does."""
        self._replaying = True
        try:
            yield
            if self._replaying:
                raise BoundaryError("a graph was replayed outside a forward of the model", where="a captured body")
        finally:
            self._replaying = False

    def _replayed_body(self, mode: str, done: Forward) -> None:
        if done.executed:
            raise BoundaryError("ops ran beside the graph that holds them", where=f"{mode}, {done.tokens} tokens")
        captured = self._of_graph(mode, done.tokens)
        self._replaying = False
        self._count(replace(captured, unplanned=captured.unplanned + done.unplanned))

    def _of_graph(self, mode: str, tokens: int) -> Forward:
        captured = self._captured.get((mode, tokens))
        if captured is None:
            raise BoundaryError("a graph ran that was not captured under the plan", where=f"{mode}, {tokens} tokens")
        return captured

    def _count(self, done: Forward) -> None:
        mode = done.program.mode
        counted = self.by_range.setdefault((mode, done.program.index), RangeCount())
        counted.forwards += 1
        counted.tokens += done.tokens
        counted.idle += done.sizes.own == 0
        if done.unplanned:
            self.unplanned[mode] = self.unplanned.get(mode, 0) + done.unplanned
        for count, rows in done.executed:
            count.calls += 1
            count.rows += rows

    # ---- the ops of a forward --------------------------------------------------------------------------------------

    def at(self, where: str) -> Forward:
        """The forward in progress; raises BoundaryError where there is none."""
        if self.current is None:
            raise BoundaryError("reached outside a forward of the model", where=where)
        return self.current

    def sum(self, layer: int, boundary: str, partial: Tensor) -> Tensor:
        """[T, H] partial rows at attn_out or mlp_out of a layer to their sum, by the planned op."""
        now = self.at(f"layer {layer} {boundary}")
        if partial.shape[0] != now.tokens:
            raise BoundaryError(
                f"holds {partial.shape[0]} rows in a forward of {now.tokens} tokens", where=f"layer {layer} {boundary}"
            )
        bound = self._bound(now, layer, boundary)
        if not _crosses(bound):
            return self.run(bound, bound.sum, partial)
        if boundary != "mlp_out" or layer + 1 < len(now.program.layers):
            raise BoundaryError("a sum that does the norm as well was asked for alone", where=str(bound.place))
        now.owed = True
        return partial

    def pushes(self, layer: int, boundary: str) -> bool:
        """Do the rows of a boundary travel while they are made, in the forward in progress?"""
        now = self.current
        return now is not None and self._bound(now, layer, boundary).push is not None

    def push(self, layer: int, boundary: str, rows: Tensor, make: Make) -> None:
        """Have `make` fill [T, H] partial rows of a boundary, and send them meanwhile to where their sum is made."""
        now = self.at(f"layer {layer} {boundary}")
        bound = self._bound(now, layer, boundary)
        if bound.push is None or rows.shape[0] != now.tokens:
            raise BoundaryError(
                f"holds {rows.shape[0]} rows to push in a forward of {now.tokens} tokens", where=str(bound.place)
            )
        bound.push(rows, make)
        now.pushed = bound

    def crosses(self, layer: int, boundary: str) -> bool:
        """Is the add and the norm behind a boundary the plan's to do, in the forward in progress?"""
        return _crosses(self._bound(self.at(f"layer {layer} {boundary}"), layer, boundary))

    def crossed(
        self, layer: int, boundary: str, partial: Tensor, residual: Tensor, norm: nn.Module
    ) -> tuple[Tensor, Tensor] | None:
        """(what the next block consumes, the residual) from [T, H] partial rows, or None if that is the server's to do.

        By the op, the residual add, the norm, and the op of the next boundary. The residual comes and goes in the
        layout that the plan has there, and its memory is the caller's to give: the new one may be written over it.
        """
        where = f"layer {layer} {boundary}"
        now = self.at(where)
        bound = self._bound(now, layer, boundary)
        if not _crosses(bound):
            return None
        self._nothing_late(now)
        if bound.push is not None and now.pushed is not bound:
            raise BoundaryError("its rows were not pushed while they were made", where=str(bound.place))
        now.pushed = None
        assert bound.place.before is not None
        rows = now.sizes.of(bound.place.before.residual)
        if partial.shape[0] != now.tokens or residual.shape != (rows, partial.shape[1]):
            raise BoundaryError(
                f"holds {partial.shape[0]} rows and a residual of {residual.shape[0]}, planned {rows}, in a forward of "
                f"{now.tokens} tokens",
                where=where,
            )
        now.owed = False
        following = self.next_linears.get((layer, boundary))
        if following is not None and bound.read_ahead is not None:
            bound.read_ahead(following.weight)  # as it is now: a server may have given it another
        self._in_op = True
        try:
            normed, residual = sum_add_and_norm(bound, partial, residual, now.sizes, norm)
        finally:
            self._in_op = False
        now.executed.append((bound.count, partial.shape[0]))
        return self.enter(now, follower(now.program, layer, boundary), normed), residual

    def enter(self, now: Forward, bound: BoundIn, normed: Tensor) -> Tensor:
        """Normed rows by the op of an `_in` boundary; of a late gather as they are, and their latents are gathered."""
        if bound.latent:
            now.late = bound
            return normed
        return self.run(bound, bound.run, normed) if bound.place.op.kind.runs else normed

    def entered_first(self, normed: Tensor) -> Tensor:
        """The normed rows of the embedding, as the first attention consumes them."""
        now = self.at("layer 0 attn_in")
        rows = now.sizes.of(now.program.embed_out.place.after.hidden)
        if normed.shape[0] != rows:
            raise BoundaryError(f"holds {normed.shape[0]} rows, planned {rows}", where="layer 0 attn_in")
        return self.enter(now, now.program.layers[0].attn_in, normed)

    def latents(self, shard: Tensor) -> Tensor:
        """[S, width] latents of this rank's rows to those of all, where the plan gathers them late."""
        now = self.current
        if now is None or now.late is None:
            return shard
        late, now.late = now.late, None
        if shard.shape[0] != now.sizes.shard:
            raise BoundaryError(
                f"holds latents of {shard.shape[0]} rows in a shard of {now.sizes.shard}", where=str(late.place)
            )
        return self.run(late, late.run, shard)

    @staticmethod
    def _nothing_late(now: Forward) -> None:
        if now.late is not None:
            late, now.late = now.late, None
            raise BoundaryError("attention did not project its latents by itself", where=str(late.place))

    @staticmethod
    def _bound(now: Forward, layer: int, boundary: str) -> BoundOut:
        ops = now.program.layers[layer]
        return ops.attn_out if boundary == "attn_out" else ops.mlp_out

    @contextmanager
    def embedding(self) -> Iterator[None]:
        """Around the embedding, whose all-reduce is embed_out."""
        self._in_embedding = True
        try:
            yield
        finally:
            self._in_embedding = False

    def all_reduce(self, original: Callable[..., Tensor], group: Any, x: Tensor) -> Tensor:
        """In place of the server's all-reduce: embed_out by the planned op; any other in a forward was not planned."""
        now, p = self.current, self.file.parallelism
        if now is None or self._in_op or group.world_size not in (p.tp, p.attn_tp) or group.world_size == 1:
            return original(group, x)
        if self._in_embedding:
            return self.run(now.program.embed_out, now.program.embed_out.sum, x)
        now.unplanned += 1
        return original(group, x)

    def run(self, bound: BoundIn | BoundOut, op: Callable[[Tensor, Sizes], Tensor], x: Tensor) -> Tensor:
        """Run an op of the forward in progress and note that it ran."""
        now = self.current
        assert now is not None
        self._in_op = True
        try:
            out = op(x, now.sizes)
        finally:
            self._in_op = False
        if bound.place.op.kind.runs:
            now.executed.append((bound.count, x.shape[0]))
        return out


def _crosses(bound: BoundOut) -> bool:
    place = bound.place
    assert place.before is not None
    return bound.norm is not None or crosses(place.op, place.before, place.after)
