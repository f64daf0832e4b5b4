"""What the kernels beside copies through host memory do, in Python, for ranks without a GPU. x86 stores in order."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from ...ranks.groups import Group
from . import page
from .memory import HostMemory

_LOOKS = 200_000  # but for the first, more than a tenth of a millisecond each: half a minute
_AT_ONCE = 100
_PAUSE_S = 1e-4


class PlainFlags:
    """Who tells and awaits pieces; each method when it is called. Methods as of StagedKernels."""

    def __init__(self, group: Group, memory: HostMemory) -> None:
        self.looks = _LOOKS
        self.error = torch.zeros(1, dtype=torch.int32)
        self._pages = memory.pages
        self._rank = group.rank
        self._others = [q for q in range(group.size) if q != group.rank]
        self._uses = [0, 0]

    def await_read(self, half: int) -> None:
        """All peers have read what the last use of a half brought. What is overwritten else no longer counts."""
        at, uses = page.read_at(half), self._uses[half]
        if self._lost or not all(self._await(self._pages[q], at, uses) >= uses for q in self._others):
            self._give_up()

    def tell(self, half: int, piece: int) -> None:
        """The copy of a piece to host memory has been made."""
        if not self._lost:
            self._pages[self._rank][page.told_at(half, piece)] = self._uses[half] + 1

    def await_piece(self, half: int, piece: int) -> None:
        """All peers have brought theirs."""
        at, wanted = page.told_at(half, piece), self._uses[half] + 1
        if self._lost or not all(self._await(self._pages[q], at, wanted) == wanted for q in self._others):
            self._give_up()

    def arrived(self, got_NB: Tensor, half: int, piece: int) -> None:
        """The copies from host memory have been made: what did not come is spoiled."""
        at, wanted = page.told_at(half, piece), self._uses[half] + 1
        if self._lost or any(self._pages[q][at] != wanted for q in self._others):
            self._give_up()
            for q in self._others:
                got_NB[q] = -1

    def finish(self, half: int) -> None:
        """All of a use of a half has been read."""
        self._uses[half] += 1
        if not self._lost:
            self._pages[self._rank][page.read_at(half)] = self._uses[half]

    @property
    def _lost(self) -> bool:
        return bool(self.error[0])

    def _await(self, flags: memoryview, at: int, wanted: int) -> int:
        """What a flag says that has come to be `wanted` or more; less where its rank or this one has given up."""
        for tried in range(0 if self._lost else self.looks):
            if flags[at] >= wanted or flags[at] == page.GIVEN_UP:
                break
            time.sleep(0 if tried < _AT_ONCE else _PAUSE_S)
        return int(flags[at])

    def _give_up(self) -> None:
        self.error[0] = 1
        for flag in range(page.FLAGS):
            self._pages[self._rank][flag * page.STRIDE] = page.GIVEN_UP
