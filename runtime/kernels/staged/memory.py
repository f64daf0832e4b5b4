"""Memory of this host: every rank of a group has a segment of its own, and all of them have mapped it.

A segment is a file without a name (memfd), which is no part of /dev/shm: containers limit that. Others open it through
/proc by the process that made it and the number of its descriptor, so ranks have to see each other's processes. In
another host or container these numbers stand for something else, or nothing; a random token, which is part of the name
that /proc shows and stands in the segment, says that it is the one.
"""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ...errors import RefusedError
from ...ranks.groups import Group
from . import page

_PORTABLE, _MAPPED = 1, 2  # of cudaHostRegister
_TOKEN_WORDS = 2
_MAKES, _FINDS, _READS, _LOCKS = range(1, 5)
_FAILURES = {
    _MAKES: "cannot make memory to share",
    _FINDS: "does not find the memory of rank {peer}",
    _READS: "reads in the memory of rank {peer} what that has not written",
    _LOCKS: "cannot lock the memory of rank {peer} for its GPU",
}
_SAME_HOST = "it is for ranks of one host that see each other's processes: start all of them in one container"
_WAYS = {
    _MAKES: "it takes {size} bytes of the host's memory for each rank: give it more, or plan for fewer tokens",
    _FINDS: _SAME_HOST,
    _READS: _SAME_HOST,
    _LOCKS: "it takes {size} bytes of the host's memory for each rank: let processes lock more (ulimit -l)",
}
OTHERWISE = "leave `impl` out, so that the library sums"
"""The way out that there always is."""

Failure = tuple[int, int, int]
"""(what fails, with whose memory, the number of the system's or CUDA's error); zeros of none."""
_NONE: Failure = (0, 0, 0)


class HostMemory:
    """The segments of a group as this rank has mapped them, each two halves and a page of flags.

    halves          int8 [2, half_bytes] of every rank
    pages           of every rank, as words of 8 bytes
    page_addresses  of every rank
    """

    def __init__(self, maps: list[mmap.mmap], half_bytes: int) -> None:
        self.half_bytes = half_bytes
        self._registered = list[int]()
        self._whole = [torch.frombuffer(each, dtype=torch.int8) for each in maps]
        self.halves: list[Tensor] = [each[: 2 * half_bytes].view(2, half_bytes) for each in self._whole]
        self.pages = [memoryview(each)[2 * half_bytes :].cast("q") for each in maps]
        self.page_addresses = [each.data_ptr() + 2 * half_bytes for each in self._whole]

    @classmethod
    def make(cls, group: Group, device: torch.device, half_bytes: int) -> HostMemory:
        """Every rank of the group must call this. Raises the same RefusedError on all where one of them cannot."""
        half_bytes = -(-half_bytes // page.PAGE_BYTES) * page.PAGE_BYTES
        size = 2 * half_bytes + page.PAGE_BYTES
        token = [secrets.randbits(63) for _ in range(_TOKEN_WORDS)]
        descriptor, failure = _made(size, token)
        try:
            told = exchange(group, device, [os.getpid(), descriptor, *token, *failure])
            _refuse_failures(told, size)
            maps, failure = [], _NONE
            for peer, (pid, number, *rest) in enumerate(told):
                place = f"/proc/self/fd/{descriptor}" if peer == group.rank else f"/proc/{pid}/fd/{number}"
                found, why = _mapped(place, size, rest[:_TOKEN_WORDS])
                maps += found
                failure = failure if failure[0] or not why[0] else (why[0], peer, why[2])
            memory = None if failure[0] else cls(maps, half_bytes)
            if memory is not None and device.type == "cuda":
                failure = memory._lock()
            told = exchange(group, device, [*failure])
            if memory is not None and any(each[0] for each in told):
                memory.close()
            _refuse_failures(told, size)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        assert memory is not None
        return memory

    def _lock(self) -> Failure:
        """For this rank's GPU: no page moves, and copy engines and kernels reach them by their addresses here."""
        for peer, each in enumerate(self._whole):
            status = int(_cuda().cudaHostRegister(each.data_ptr(), each.numel(), _PORTABLE | _MAPPED))
            if status:
                _forget_error()
                return _LOCKS, peer, status
            self._registered.append(each.data_ptr())
        return _NONE

    def close(self) -> None:
        """Unlock it and let it go: what is mapped here stays until nobody has a view of it."""
        while self._registered:
            if int(_cuda().cudaHostUnregister(self._registered.pop())):
                _forget_error()
        self.pages, self.halves, self._whole = [], [], []


@contextmanager
def giving_back(memory: HostMemory, group: Group, device: torch.device) -> Iterator[None]:
    """What is made of it in here is made on all ranks or on none, and then the memory is given back."""
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    failed = [rank for rank, (has,) in enumerate(exchange(group, device, [int(failure is not None)])) if has]
    if failed:
        memory.close()
        why = f"rank {failed[0]} of its group cannot use host memory, and says why: {OTHERWISE}"
        raise failure or RefusedError(why, field="impl")


def refuse_unless_received(right: bool, group: Group, device: torch.device, close: Callable[[], None]) -> None:
    """Of what was tried when it was made: if a rank has not got what the others sent, all close it and refuse alike."""
    told = exchange(group, device, [int(right)])
    if not all(each for (each,) in told):
        close()
        raise RefusedError(
            f"rank {told.index([0])} of its group does not receive through host memory what others send: {OTHERWISE}",
            field="impl",
        )


def _forget_error() -> None:
    """CUDA keeps its last error for whoever asks next, and PyTorch asks behind each launch."""
    with suppress(RuntimeError):
        torch.zeros(1, device="cuda")


def _cuda() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]


def _made(size: int, token: list[int]) -> tuple[int, Failure]:
    """(descriptor of a segment of zeros with its token, or -1; what failed)."""
    if not hasattr(os, "memfd_create"):
        return -1, (_MAKES, 0, errno.ENOSYS)
    descriptor = -1
    try:
        descriptor = os.memfd_create(_name(token), os.MFD_CLOEXEC)
        os.posix_fallocate(descriptor, 0, size)  # near this process; where a limit says so, an error now
        os.pwrite(descriptor, _bytes(token), size - page.FROM_TOKEN)
    except OSError as error:
        if descriptor >= 0:
            os.close(descriptor)
        return -1, (_MAKES, 0, error.errno or errno.EIO)
    return descriptor, _NONE


def _mapped(place: str, size: int, token: list[int]) -> tuple[list[mmap.mmap], Failure]:
    """(the segment, what failed with it)."""
    try:
        if not os.readlink(place).startswith(f"/memfd:{_name(token)}"):  # what else it is may not even be opened
            return [], (_FINDS, 0, errno.ENOENT)
        descriptor = os.open(place, os.O_RDWR | os.O_CLOEXEC)
        try:
            mapped = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: of another size
        return [], (_FINDS, 0, getattr(error, "errno", None) or errno.EINVAL)
    at = size - page.FROM_TOKEN
    same = mapped[at : at + 8 * _TOKEN_WORDS] == _bytes(token)
    return [mapped], _NONE if same else (_READS, 0, 0)


def _bytes(token: list[int]) -> bytes:
    return b"".join(word.to_bytes(8, sys.byteorder) for word in token)


def _name(token: list[int]) -> str:
    return "commplan-" + "".join(f"{word:016x}" for word in token)


def exchange(group: Group, device: torch.device, mine: list[int]) -> list[list[int]]:
    """Numbers of every rank."""
    device = torch.device("cpu") if dist.get_backend(group.handle) == "gloo" else device
    table = torch.zeros(group.size, len(mine), dtype=torch.int64, device=device)
    dist.all_gather(list(table.unbind(0)), torch.tensor(mine, device=device), group=group.handle)
    return [[int(number) for number in row] for row in table.tolist()]


def _refuse_failures(told: list[list[int]], size: int) -> None:
    """The first rank's failure, in the same words on all ranks. It stands at the end of what each has told."""
    for rank, numbers in enumerate(told):
        what, peer, number = numbers[-3:]
        if what:
            reason = _FAILURES[what].format(peer=peer)
            why = f"CUDA error {number}" if what == _LOCKS else os.strerror(number) if number else "another token"
            way = f"{_WAYS[what].format(size=size)}; or {OTHERWISE}"
            raise RefusedError(f"rank {rank} of its group {reason} ({why}): {way}", field="impl")


__all__ = ["OTHERWISE", "HostMemory", "giving_back", "refuse_unless_received"]
