"""Sums composed of a backend's library and kernels that write whole messages: values and scales in one.

    gather     quantise | all-gather | sum, and what follows it
    two_shot   quantise | all-to-all | sum a shard and quantise it | all-gather | what follows the sum

Rows that travel as they are, without a wire format, are gathered: they are sent from where they are, and a rank's own
are summed from there.

Rows may be cut into pieces, which are quantised, sent and summed side by side: the library works on a stream of its
own. Every step is issued for all pieces before the next, so that a link never waits for a sum that it could overlap.
Nothing waits on the host, and graphs may capture it: memory is the caching allocator's, and streams fork and join by
events.

Every rank sums what it has sent as its peers have received it, in the order of ranks: all hold the same bits.

Shapes: T rows of the message, H width, N ranks, B bytes of a record, S records of a shard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from commplan.planner.strategy.wire import Wire

from ..backends import Backend
from ..errors import RefusedError
from ..kernels.custom_ops import normed_rows, register, rows
from ..kernels.wire.layout import RowLayout
from ..kernels.wire.plain import WireRows
from ..kernels.wire.row_sums import GatheredRows, RowSums
from ..ranks.groups import Group
from .carriers import Carrier, Library


class Piece(NamedTuple):
    """Some rows of a message, from `first` on."""

    first: int
    rows: int

    def of(self, x: Tensor) -> Tensor:
        """Those of a tensor of all rows."""
        return x[self.first : self.first + self.rows]


Finish = Callable[[Piece, Any], None]
"""Do with (a piece, its records [copies, S, B] or GatheredRows) what is left: their sum, and what follows it."""


class WireSum:
    """A sum over a group, for rows of one width.

    `wire`: the format in which they travel, as they are if None; `algorithm`: gather | two_shot, of rows as they are
    gather alone; `pieces`: into how many the rows are cut, as far as they go; `carrier`: of the messages, the library
    if None.
    """

    def __init__(
        self,
        backend: Backend,
        group: Group,
        wire: Wire | None,
        width: int,
        algorithm: str,
        pieces: int = 1,
        carrier: Carrier | None = None,
    ) -> None:
        self._carrier = carrier = carrier or Library(backend)
        self._group, self._pieces = group, pieces
        if algorithm not in carrier.algorithms:
            raise RefusedError(
                f"its messages are carried for {', '.join(carrier.algorithms)} alone",
                field="algorithm",
                value=algorithm,
            )
        if carrier.pieces is not None and pieces > carrier.pieces:
            raise RefusedError(f"up to {carrier.pieces} are carried", field="pieces", value=pieces)
        self._sums: WireRows | RowSums
        self._way: Callable[[Tensor, Finish], None]
        if wire is None:
            if algorithm != "gather":
                raise RefusedError("rows as they are are gathered alone", field="algorithm", value=algorithm)
            self._sums, self._way = backend.row_sums(group.rank), self._gather_rows
        else:
            self.layout = RowLayout.of(wire, width)
            self._sums = self._kernels = backend.wire_rows(self.layout)
            self._way = {"gather": self._gather, "two_shot": self._two_shot}[algorithm]
        self._multiple = group.size if algorithm == "two_shot" else 1
        self._handle = register(self)

    # ---- as callers have it -----------------------------------------------------------------------------------------

    def sum(self, x_TH: Tensor) -> Tensor:
        """[T, H] summed over the group. Every rank calls it, with as many rows."""
        if torch.compiler.is_compiling():
            out: Tensor = rows(x_TH, self._handle, "")
            return out
        return self.rows_now("", x_TH)

    def sum_norm(
        self, x_TH: Tensor, residual_TH: Tensor | None, weight_H: Tensor, eps: float, *, overwrite: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(RMSNorm of sum + residual, sum + residual); without a residual of the sum alone.

        `overwrite`: nobody needs the old residual any more, and the new one is written in its place.
        """
        if torch.compiler.is_compiling():
            found: tuple[Tensor, Tensor] = normed_rows(x_TH, residual_TH, weight_H, eps, self._handle, "")
            return found
        total = residual_TH if overwrite and residual_TH is not None else torch.empty_like(x_TH)
        return self._normed(x_TH, residual_TH, weight_H, eps, total)

    # ---- as custom ops have it --------------------------------------------------------------------------------------

    def rows_out(self, op: str, rows: int) -> int:  # noqa: ARG002
        """Rows that come out."""
        return rows

    def rows_now(self, op: str, x: Tensor) -> Tensor:  # noqa: ARG002
        """As `sum`."""
        out = torch.empty_like(x)
        self._run(x, lambda piece, got: self._sums.sum(got, piece.of(out)))
        return out

    def normed_rows_now(
        self, op: str, x: Tensor, residual: Tensor | None, weight: Tensor, eps: float  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """As `sum_norm`."""
        return self._normed(x, residual, weight, eps, torch.empty_like(x))

    def _normed(
        self, x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, total: Tensor
    ) -> tuple[Tensor, Tensor]:
        out = torch.empty_like(x)

        def finish(piece: Piece, got: Any) -> None:
            before = None if residual is None else piece.of(residual)
            self._sums.sum_norm(got, before, weight, eps, piece.of(out), piece.of(total))

        self._run(x, finish)
        return out, total

    # ---- the algorithms ---------------------------------------------------------------------------------------------

    def pieces_of(self, tokens: int) -> list[Piece]:
        """Runs of rows as equal as can be, each but the last of whole shards."""
        units = -(-tokens // self._multiple)
        count = min(self._pieces, units)
        ends = [min(units * (n + 1) // count * self._multiple, tokens) for n in range(count)]
        return [Piece(first, end - first) for first, end in zip([0, *ends], ends, strict=False)]

    def _run(self, x: Tensor, finish: Finish) -> None:
        if x.shape[0]:
            self._carrier.begin()
            try:
                self._way(x, finish)
            finally:
                self._carrier.end()

    def _gather(self, x: Tensor, finish: Finish) -> None:
        arriving = []
        for piece in self.pieces_of(x.shape[0]):
            got, mine = self._buffers(x, piece.rows)
            self._kernels.quantize(piece.of(x), mine)
            work = self._carrier.start_all_gather(got.flatten(0, 1), mine, self._group)
            arriving.append((piece, mine, got, work))  # what a library reads must live until it has
        for piece, _, got, work in arriving:
            work.wait()
            finish(piece, got)

    def _gather_rows(self, x: Tensor, finish: Finish) -> None:
        """As `_gather`, of rows as they are."""
        arriving = []
        for piece in self.pieces_of(x.shape[0]):
            mine = piece.of(x)
            got = x.new_empty(self._group.size, *mine.shape)
            work = self._carrier.start_all_gather(_bytes(got.flatten(0, 1)), _bytes(mine), self._group)
            arriving.append((piece, GatheredRows(mine, got), work))
        for piece, gathered, work in arriving:
            work.wait()
            finish(piece, gathered)

    def _two_shot(self, x: Tensor, finish: Finish) -> None:
        size, group = self._group.size, self._group
        leaving = []
        for piece in self.pieces_of(x.shape[0]):
            sent = self._records(x, size, -(-piece.rows // size))
            got = torch.empty_like(sent)
            self._kernels.quantize(piece.of(x), sent.flatten(0, 1))
            work = self._carrier.start_all_to_all(got.flatten(0, 1), sent.flatten(0, 1), group)
            leaving.append((piece, sent, got, work))
        arriving = []
        for piece, _, got, work in leaving:
            work.wait()
            whole, mine = self._buffers(x, got.shape[1])
            self._kernels.reduce(got, mine)
            gathered = self._carrier.start_all_gather(whole.flatten(0, 1), mine, group)
            arriving.append((piece, mine, whole, gathered))
        for piece, _, whole, gathered in arriving:
            gathered.wait()
            finish(piece, whole.flatten(0, 1).unsqueeze(0))

    def _buffers(self, x: Tensor, records: int) -> tuple[Tensor, Tensor]:
        """(records of all ranks [N, records, B], this rank's: among them where the library gathers in place)."""
        got = self._records(x, self._group.size, records)
        return got, got[self._group.rank] if self._carrier.gathers_in_place else torch.empty_like(got[0])

    def _records(self, x: Tensor, ranks: int, records: int) -> Tensor:
        return x.new_empty(ranks, records, self.layout.row_bytes, dtype=torch.int8)


def _bytes(rows: Tensor) -> Tensor:
    """Rows as a message of bytes, where they are."""
    return rows.view(torch.int8)


__all__ = ["Piece", "WireSum"]
