"""Messages between ranks of one host whose GPUs do not reach each other's memory: by copy engines through host memory.

Every rank has a segment that all have mapped (kernels/staged): two halves and a page of flags, which it alone writes. A
use of a half is one sum, of up to 8 pieces. On streams of its own each way, by the rank and for every piece

    up    (first: await that all peers have read the last use of this half) | copy to the half | tell
    down  await that all peers have told | copy from their halves | see that nothing was given up | (last: acknowledge)

The copies are plain ones, of engines that take no multiprocessors; what stands between them are kernels of a warp.

Why it is right. Which half a call has is settled on the host, where halves alternate, so it is fixed in a graph, and a
half may be used twice in a row by graphs that replay. How many uses there were is counted on the device. A piece is
told as the number of the use, and taken only at just that number; a half is overwritten when all peers have
acknowledged the use before. So any order of graphs and calls is right if it is the same on all ranks, and two orders
can only wait for each other in vain.
    Memory: a kernel behind a copy on a stream begins when the copy's bytes can be seen, and tells behind a fence of the
system; data and flag go the same way into the same segment. A copy behind an await begins when the flag was seen, and
the engine reads host memory itself. An acknowledgement comes behind the copies that have read. A flag is one aligned
word of one writer.
    Nothing waits for what is given to a stream later, on any rank: `up` waits for uses that have ended, and `down` of a
piece begins behind this rank's own `tell` of it. So no rank needs two of its streams to run at once, as branches of a
graph or streams that share a queue may not; ranks that begin together lose nothing by that.
    The caller's memory is read and written behind a fork from its stream and before `end`, which joins both streams.

Giving up. Who has awaited in vain writes GIVEN_UP over its own flags, tells and acknowledges nothing from then on, and
fills all that it receives with bytes of 0xFF: scales, and rows that travel as they are, are NaN then. But its copies go
on: no kernel can hold them back. They would overwrite what a peer that is only late has been told of and has not
read. So before the first of them, on the same stream, the flags are taken back once more (a `tell` of the call in which
it gave up may have come between; that one was still right). Whoever reads bytes of a later use thus finds the flag
taken back when it looks again behind its copies, and gives up too. What is told until then is of a half that its peers
had acknowledged. No rank comes back from that, and `check` says so.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..backends.base import Pending
from ..errors import BoundaryError, RefusedError
from ..kernels.beside import Beside
from ..kernels.staged.memory import OTHERWISE, HostMemory, giving_back, refuse_unless_received
from ..kernels.staged.page import PIECES, WORDS
from ..kernels.staged.plain import PlainFlags
from ..ranks.groups import Group
from .carriers import Carrier

_LINE = 64  # bytes; where a piece begins
_MOST_BYTES = 2**31
_TRIED = 4096  # bytes


class Flags(Protocol):
    """Who tells and awaits pieces (kernels/staged)."""

    looks: int
    error: Tensor

    def await_read(self, half: int) -> None:
        """All peers have read what the last use of a half brought."""

    def tell(self, half: int, piece: int) -> None:
        """A piece is in this rank's half."""

    def await_piece(self, half: int, piece: int) -> None:
        """A piece is in every peer's half."""

    def arrived(self, got_NB: Tensor, half: int, piece: int) -> None:
        """What was received of a piece is right, or spoiled."""

    def finish(self, half: int) -> None:
        """A use of a half has ended."""


class HostStaging(Carrier):
    """All-gathers of a group through host memory.

    Calls of a group are made by all ranks in the same order, and by a rank on one stream. Once a piece has not come,
    all that this rank receives is spoiled, and `check` says why; only a new one helps.
    """

    algorithms = ("gather",)
    pieces = PIECES
    gathers_in_place = True

    def __init__(self, group: Group, device: torch.device, memory: HostMemory, flags: Flags) -> None:
        self._group, self._device, self._memory, self._flags = group, device, memory, flags
        self._up, self._down = Beside(device), Beside(device)
        self._halves = memory.halves
        self._others = [(group.rank + step) % group.size for step in range(1, group.size)]
        self._next = 0
        self._half: int | None = None
        self._piece = self._used = 0

    @classmethod
    def make(cls, group: Group, device: torch.device, message_bytes: int) -> HostStaging:
        """For messages of up to so many bytes of a rank. Every rank of the group must call this, in the same order.

        Raises RefusedError, the same on all ranks, where they do not share the memory of a host.
        """
        if group.size < 2:
            raise RefusedError(f"messages through host memory join two ranks at least: {OTHERWISE}", field="impl")
        half_bytes = max(message_bytes, _TRIED) + PIECES * _LINE
        if half_bytes >= _MOST_BYTES:
            way = f"plan for fewer tokens, or {OTHERWISE}"
            raise RefusedError(
                f"a message through host memory has less than 2 GiB: {way}", field="rows", value=message_bytes
            )
        memory = HostMemory.make(group, device, half_bytes)
        with giving_back(memory, group, device):
            staging = cls(group, device, memory, _flags(group, device, memory))
        staging._try()
        return staging

    def _try(self) -> None:
        """A message by either half: all is compiled and loaded before a graph is captured, and known to work."""
        size, rank = self._group.size, self._group.rank
        numbers = torch.arange(1, size + 1, dtype=torch.int8, device=self._device)
        sent = numbers[:, None].expand(size, _TRIED).contiguous()
        received = []
        for half in (0, 1):
            got = torch.zeros_like(sent)
            got[rank] = sent[rank] - half
            self.begin()
            self.start_all_gather(got, got[rank], self._group).wait()
            self.end()
            received.append(got + half)
        right = all(torch.equal(got, sent) for got in received) and not int(self._flags.error[0])
        refuse_unless_received(right, self._group, self._device, self.close)

    @property
    def looks(self) -> int:
        """How often a rank looks for a flag before it gives up."""
        return self._flags.looks

    @looks.setter
    def looks(self, looks: int) -> None:
        """Of the calls from now on."""
        self._flags.looks = looks

    # ---- as sums have it --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A sum begins, in the other half."""
        assert self._half is None
        half, self._next = self._next, 1 - self._next
        self._piece = self._used = 0
        self._up.follow()
        with self._up.here():
            self._flags.await_read(half)
        self._half = half

    def start_all_gather(self, got_MB: Tensor, mine_SB: Tensor, group: Group) -> Pending:  # noqa: ARG002
        """The next piece of the sum."""
        half, piece = self._half, self._piece
        assert half is not None and piece < PIECES
        mine, got = mine_SB.view(torch.int8).flatten(), got_MB.view(torch.int8).view(self._group.size, -1)
        first, last = self._used, self._used + mine.numel()
        if last > self._memory.half_bytes:
            raise RefusedError(
                f"messages of {self._memory.half_bytes} bytes were asked for: send fewer rows at once",
                field="rows",
                value=f"{last} bytes",
            )
        self._piece, self._used = piece + 1, -(-last // _LINE) * _LINE
        self._up.follow()
        with self._up.here():
            self._copy(self._halves[self._group.rank][half, first:last], mine)
            self._flags.tell(half, piece)
        self._down.follow(self._up)
        with self._down.here():
            self._flags.await_piece(half, piece)
            for q in self._others:
                self._copy(got[q], self._halves[q][half, first:last])
            self._flags.arrived(got, half, piece)
            return self._down.mark()

    def start_all_to_all(self, got_MB: Tensor, sent_MB: Tensor, group: Group) -> Pending:  # noqa: ARG002
        """Not carried."""
        raise RefusedError("host memory carries gathers alone", field="algorithm", value="two_shot")

    def end(self) -> None:
        """The sum's messages have been received. One that broke off counts as well, or its flags would be believed."""
        assert self._half is not None
        half, self._half = self._half, None
        self._down.follow(self._up)
        with self._down.here():
            self._flags.finish(half)
        self._down.join()

    @staticmethod
    def _copy(to: Tensor, what: Tensor) -> None:
        to.copy_(what, non_blocking=True)

    # ---- as owners have it ------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises BoundaryError if this rank has given up waiting for a peer. Costs no synchronisation."""
        if int(self._flags.error[0]):
            raise BoundaryError(
                "a peer has sent nothing for half a minute: its process has ended or hangs", where="host staging"
            )

    def close(self) -> None:
        """Give the memory back. Nothing may be on its way any more, on any rank."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._halves = []
        self._memory.close()


def _flags(group: Group, device: torch.device, memory: HostMemory) -> Flags:
    if device.type != "cuda":
        return PlainFlags(group, memory)
    from ..kernels.staged.launch import StagedKernels

    words = torch.zeros(WORDS, dtype=torch.int64, device=device)
    error = torch.zeros(1, dtype=torch.int32, device="cpu", pin_memory=True)
    return StagedKernels(group, memory, words, error)


__all__ = ["HostStaging"]
