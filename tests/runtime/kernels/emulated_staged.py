"""Messages through host memory with their kernels in Triton's interpreter, on ranks that are processes."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist

_IMPATIENT = 200  # looks; the interpreter takes a tenth of a millisecond and more for each


def in_turn(ranks: int, *claims: tuple[str, tuple[Any, ...]]) -> list[Any]:
    """What functions of staged_sums.py give, whose messages are told and awaited by kernels."""
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    from ..collectives import staged_sums

    staged_sums.staging = lambda ranks, message_bytes=1 << 16: (  # type: ignore[assignment]
        staged_sums.group_of(ranks),
        by_kernels(staged_sums.group_of(ranks), message_bytes),
    )
    staged_sums._IMPATIENT = _IMPATIENT
    found = []
    for name, given in claims:
        found.append(getattr(staged_sums, name)(ranks, *given))
        dist.barrier()
    return found


def by_kernels(group: Any, message_bytes: int) -> Any:
    from commplan.runtime.collectives.host_staging import HostStaging
    from commplan.runtime.kernels.staged.launch import StagedKernels
    from commplan.runtime.kernels.staged.memory import HostMemory
    from commplan.runtime.kernels.staged.page import WORDS

    cpu = torch.device("cpu")
    memory = HostMemory.make(group, cpu, message_bytes)
    words, error = torch.zeros(WORDS, dtype=torch.int64), torch.zeros(1, dtype=torch.int32)
    return HostStaging(group, cpu, memory, StagedKernels(group, memory, words, error))


def alone() -> dict[str, Any]:
    """What each kernel of rank 1 of 3 leaves in pages that nobody else touches."""
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    from types import SimpleNamespace

    from commplan.runtime.kernels.staged import page
    from commplan.runtime.kernels.staged.launch import StagedKernels
    from commplan.runtime.ranks.groups import Group

    def made() -> tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor]:
        pages = torch.zeros(3, page.PAGE_BYTES // 8, dtype=torch.int64)
        words, error = torch.tensor([5, 8, 0]), torch.zeros(1, dtype=torch.int32)
        memory: Any = SimpleNamespace(page_addresses=[each.data_ptr() for each in pages])
        kernels = StagedKernels(Group("tp", None, 3, 1), memory, words, error)
        kernels.looks = 10
        return kernels, pages, words, error

    def flags(pages: torch.Tensor) -> dict[int, list[int]]:
        """By rank: those that are not zero, as (word, value)."""
        return {rank: [(int(at), int(each[at])) for at in each.nonzero()] for rank, each in enumerate(pages)}  # type: ignore[misc]

    found: dict[str, Any] = {}
    kernels, pages, words, error = made()
    kernels.tell(1, 3)
    kernels.finish(1)
    found["told"] = flags(pages), words.tolist(), int(error)

    kernels, pages, words, error = made()
    pages[0, page.read_at(0)], pages[2, page.read_at(0)] = 5, 6  # one is ahead: its next use had nothing to read
    kernels.await_read(0)
    pages[0, page.told_at(0, 7)] = pages[2, page.told_at(0, 7)] = 6
    kernels.await_piece(0, 7)
    got = torch.zeros(3, 10_000, dtype=torch.int8)
    kernels.arrived(got, 0, 7)
    found["came"] = flags(pages)[1], words.tolist(), int(error), bool((got == 0).all())

    pages[2, page.told_at(0, 7)] = page.GIVEN_UP
    kernels.arrived(got, 0, 7)
    lost = flags(pages)[1]
    found["taken back"] = lost, words.tolist(), int(error), [sorted(set(each.tolist())) for each in got]
    kernels.tell(0, 0)
    kernels.finish(0)
    found["silent"] = flags(pages)[1] == lost, words.tolist()

    for name, value in (("late", 5), ("of another use", 7), ("given up", page.GIVEN_UP)):
        kernels, pages, words, error = made()
        pages[0, page.told_at(0, 0)], pages[2, page.told_at(0, 0)] = 6, value
        kernels.looks = 10 if name == "late" else 1 << 60  # the others need no patience
        kernels.await_piece(0, 0)
        found[name] = flags(pages)[1] == lost, words.tolist(), int(error)
    kernels, pages, words, error = made()
    pages[0, page.read_at(1)], pages[2, page.read_at(1)] = 8, 7
    kernels.await_read(1)
    found["not read"] = flags(pages)[1] == lost, words.tolist(), int(error)
    return found
