"""The kernels beside copies through host memory as they are launched, on the stream of now."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...ranks.groups import Group
from ..prepared import Start, prepare
from ..row_launch import Launch
from .kernels import arrived_kernel, await_piece_kernel, await_read_kernel, finish_kernel, tell_kernel
from .memory import HostMemory

_LOOKS = 3 << 23  # over PCIe, more than a microsecond each: half a minute
_BLOCK = 1024  # bytes that a warp spoils at a time
_MOST_READY = 4096  # sizes of pieces that are kept ready


class StagedKernels:
    """Who tells and awaits pieces, on a GPU. Methods as of PlainFlags.

    `looks`: how often a flag is looked at before a rank gives up. `error`: int32 [1] in pinned host memory.
    """

    def __init__(self, group: Group, memory: HostMemory, words: Tensor, error: Tensor) -> None:
        self.error = error
        self._words = words
        self._group = torch.tensor(memory.page_addresses, dtype=torch.int64, device=words.device), words, error
        self._constants = {"RANK": group.rank, "WORLD": group.size}
        self._ready: dict[tuple[Any, ...], Start] = {}
        self._looks = _LOOKS

    @property
    def looks(self) -> int:
        """How often a flag is looked at."""
        return self._looks

    @looks.setter
    def looks(self, looks: int) -> None:
        """Of the calls from now on."""
        self._looks = looks
        self._ready.clear()

    def await_read(self, half: int) -> None:
        """All peers have read what the last use of a half brought."""
        self._start(await_read_kernel, (half, self._looks))

    def tell(self, half: int, piece: int) -> None:
        """The copy of a piece to host memory has been made."""
        self._start(tell_kernel, (half, piece))

    def await_piece(self, half: int, piece: int) -> None:
        """All peers have brought theirs."""
        self._start(await_piece_kernel, (half, piece, self._looks))

    def arrived(self, got_NB: Tensor, half: int, piece: int) -> None:
        """The copies from host memory have been made: what did not come is spoiled."""
        self._start(arrived_kernel, (half, piece, got_NB.shape[1]), got_NB, BLOCK=_BLOCK)

    def finish(self, half: int) -> None:
        """All of a use of a half has been read."""
        self._start(finish_kernel, (half,))

    def _start(
        self,
        kernel: Any,
        numbers: tuple[int, ...],
        x: Tensor | None = None,
        **flags: Any,
    ) -> None:
        key = (kernel, *numbers)
        start = self._ready.get(key)
        if start is None:
            launch = Launch(kernel, 2, 1, numbers, {**self._constants, **flags}, {"num_warps": 1})
            if len(self._ready) >= _MOST_READY:
                self._ready.clear()
            start = self._ready[key] = prepare(launch, self._group)
        x = self._words if x is None else x
        start(x, x)
