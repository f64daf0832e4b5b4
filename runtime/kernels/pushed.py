"""All-reduce whose rows travel while the GEMM that makes them goes on: copy engines push them to the peers, in pieces.

A kernel that sends rows begins when the last of them is made, and takes multiprocessors from the GEMM if it begins
sooner. Here rows are made in pieces, and as soon as one is there it goes to the same place in every peer's buffer by a
plain copy between devices, on a stream beside, and a copy of its blocks' flags behind it says so. What is left behind
the GEMM is one kernel that awaits the blocks, sums in the order of ranks, adds and norms. Over N ranks N - 1 whole
messages travel to each, as in one shot, so this is for pairs.

A buffer has two halves, and in each the rows of every peer and FLAGS flags of every peer. A peer sends a flag that is
1 in every other use of a half and 2 in those between, from words of its own that are turned before the first piece, so
that graphs replay; how many uses there were the receiver's state tells. One bit is enough, and two halves are, as long
as there is another collective of all these ranks between two uses of a half: a rank that has ended it has heard of
every peer's part in it, which came after that peer's last use of the half. Whoever names the halves sees to that: they
alternate, or belong to boundaries that do.

A copy cannot be held back by what a kernel finds. So a rank that has given up a row, of whatever op, spoils its words
and its flags at its peers instead, before anything else is sent, and a receiver looks at the flag once more when it has
done with the row: what it has read was sent before the peer gave up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BoundaryError, RefusedError
from ..ranks.groups import Group
from .beside import Beside
from .op_launches import Task
from .peers import Make
from .prepared import Start, is_launching, prepare
from .pushed_kernel import pushed_kernel, turn_kernel
from .room import FLAGS
from .row_launch import Dependence, Launch, Tuning, cut_of, launch_options, registers_of
from .symmetric import Workspace

PIECE_ROWS = 1024
"""Of the last piece, or half more or less; nothing hides its way. Others have a multiple: a GEMM of fewer rows leaves
multiprocessors idle."""
GROWTH = 2.0
"""Of a piece over the one behind it: a GEMM over PUSHED_INNER columns takes twice as long for a row as its copy."""
_TILE = 128  # rows of a flag are a multiple of this, as GEMMs work on


class Sent(NamedTuple):
    """Rows that are on their way, and whose sum is not yet asked for."""

    address: int
    rows: int
    half: int
    is_captured: bool


class Pushed:
    """The pushed sums of a group.

    `space`: a workspace with views whose halves have `pushed_bytes` for `rows` rows of `width` elements of 2 bytes;
    it is zero. `uses`: int64 [2] of zeros on the device; `state` and `error`: those of the group's kernels.
    All ranks make the same calls in the same order, and a rank's on one stream.
    """

    def __init__(
        self, group: Group, space: Workspace, rows: int, width: int, uses: Tensor, state: Tensor, error: Tensor
    ) -> None:
        self._group, self._space, self._rows, self._width = group, space, rows, width
        self._uses, self._state, self._error = uses, state, error
        self._beside = Beside(uses.device)
        self._sent: Sent | None = None
        self._next = 0
        others = group.size - 1
        self._flags_at = 2 * others * rows * width * 2
        buffers = space.views
        self._places = {q: self._place(buffers[q], q) for q in range(group.size) if q != group.rank}
        tail = buffers[group.rank][self._flags_at :].view(torch.int32)
        words = 2 * others * FLAGS
        self._words = tail[words : words + 2 * FLAGS].view(2, FLAGS)
        self._words.fill_(2)  # turned ahead of the first use
        self._constants = {"RANK": group.rank, "WORLD": group.size, "FLAGS": FLAGS}
        turns = (
            Launch(turn_kernel, 2, 1, (half, self._flags_at), self._constants, {"num_warps": 1}) for half in (0, 1)
        )
        self._turns = [prepare(turn, (space.peers, state)) for turn in turns]

    def _place(self, buffer: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """Where this rank's rows and flags go in a peer's buffer: int16 [2, rows, width], int32 [2, FLAGS]."""
        others, mine = self._group.size - 1, self._group.rank - (rank < self._group.rank)
        rows = buffer[: self._flags_at].view(torch.int16).view(2, others, self._rows, self._width)
        flags = buffer[self._flags_at :].view(torch.int32)[: 2 * others * FLAGS].view(2, others, FLAGS)
        return rows[:, mine], flags[:, mine]

    def push(self, x_TH: Tensor, half: int | None = None, make: Make | None = None) -> None:
        """Send a message, every piece as soon as `make` has filled it; all of it is there already where it is None.

        The sum of just these rows has to be asked for next. `half`: the same on all ranks, and another one than at the
        last call unless a collective of all ranks stands between; None: they alternate.
        """
        rows, width = x_TH.shape
        if not rows:
            return
        if self._sent is not None:
            raise BoundaryError("the sum of the rows pushed before was not asked for", where="all_reduce, pushed")
        fits = rows <= self._rows and width == self._width and x_TH.element_size() == 2
        if not fits or not x_TH.is_contiguous():
            raise RefusedError(
                f"a workspace for {self._rows} rows of {self._width} elements of 2 bytes, one behind the other",
                field="x.shape",
                value=(*x_TH.shape, x_TH.dtype, x_TH.stride()),
            )
        if half is None:
            half, self._next = self._next, 1 - self._next
        self._beside.follow()
        with self._beside.here():
            self._turns[half](self._uses, self._uses)
        bits, block = x_TH.view(torch.int16), block_rows(rows)
        for first, last in pieces_of(rows) if make is not None else [(0, rows)]:
            if make is not None:
                make(first, last)
            if not is_launching():
                continue
            self._beside.follow()
            # The last one's for all that are left: in another use there may be more blocks.
            told = slice(first // block, FLAGS if last == rows else last // block)
            with self._beside.here():
                for there, flags in self._places.values():
                    there[half, first:last].copy_(bits[first:last], non_blocking=True)
                    flags[half, told].copy_(self._words[half, told], non_blocking=True)
        self._sent = Sent(x_TH.data_ptr(), rows, half, self._beside.is_captured())

    def prepare(self, task: Task, dependent: Dependence, looks: int) -> Start:
        """What sums messages of a shape; one that has not been pushed before is pushed whole."""
        arrays_of_group = self._space.peers, self._uses, self._error, self._state
        starts = [prepare(launch, arrays_of_group) for launch in self._launches(task, dependent, looks)]

        def start(x: Tensor, *arrays: Tensor) -> None:
            if self._sent is None:
                self.push(x)
            sent, self._sent = self._sent, None
            assert sent is not None
            if (sent.address, sent.rows) != (x.data_ptr(), task.rows):
                raise BoundaryError("other rows were pushed than those that are summed", where="all_reduce, pushed")
            if sent.is_captured != self._beside.is_captured():
                raise BoundaryError(
                    "rows were pushed in a graph and are summed outside of it", where="all_reduce, pushed"
                )
            # Who waits has sent all: small copies may be made by multiprocessors, which programs that wait can fill.
            self._beside.join()
            starts[sent.half](x, *arrays)

        return start

    def _launches(self, task: Task, dependent: Dependence, looks: int) -> Iterator[Launch]:
        """Of both halves."""
        cut = cut_of(task.width, False, False, Tuning())
        row_bytes = 2 * task.width
        options = launch_options(cut.warps, registers_of(task.width, cut.warps, False, task.norm), dependent)
        constants = {
            **self._constants,
            "PARTS": cut.parts,
            "NORM": task.norm,
            "RESIDUAL": task.residual,
            "DEPENDENT": dependent,
        }
        slot_bytes = self._rows * row_bytes
        for half in range(2):
            numbers = (
                *(half, (self._group.size - 1) * slot_bytes, self._flags_at, block_rows(task.rows), task.width),
                *(task.eps, row_bytes, slot_bytes, looks),
            )
            yield Launch(pushed_kernel, 5, task.rows, numbers, constants, options)


def block_rows(rows: int) -> int:
    """Rows that share a flag: FLAGS are enough for all blocks, and a piece is some of them."""
    return _TILE << max(0, math.ceil(math.log2(rows / (_TILE * FLAGS))))


def pieces_of(rows: int) -> list[tuple[int, int]]:
    """(first row, first row behind) of every piece.

    Rows that are split take a GEMM longer, so pieces are few. The copy of each is hidden by the GEMM of the next, so
    that they may be as much longer, from the last one to the first, as a GEMM is slower than a copy.
    """
    step = max(PIECE_ROWS, block_rows(rows))
    whole = max(1, (rows + step // 2) // step)  # the last piece may be half as long as a step, or half longer
    sizes, size = [1], 1.0
    while sum(sizes) < whole:
        size *= GROWTH
        sizes.append(min(max(1, round(size)), whole - sum(sizes)))
    if len(sizes) > 2 and 2 * sizes[-1] < sizes[-2]:
        few = sizes.pop()
        sizes[-1] += few
    firsts = accumulate([0, *sizes[:0:-1]])
    return list(pairwise([*(step * number for number in firsts), rows]))


__all__ = ["Pushed", "block_rows", "pieces_of"]
