"""Runs on a rank: quantised sums whose messages go through host memory, beside the same ones by gloo."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from commplan.runtime.backends import load_backend
from commplan.runtime.collectives import host_staging
from commplan.runtime.collectives.host_staging import HostStaging
from commplan.runtime.collectives.wire_sums import WireSum
from commplan.runtime.errors import BoundaryError, RefusedError
from commplan.runtime.ranks.groups import Group

from ...wire_cases import EPS, FORMATS, WireCase, wire_of
from .composed_sums import group_of, wire_sum

CPU = torch.device("cpu")
WIDTH = 64
_IMPATIENT = 400  # looks: some tenths of a second


def staging(ranks: int, message_bytes: int = 1 << 16) -> tuple[Group, HostStaging]:
    group = group_of(ranks)
    return group, HostStaging.make(group, CPU, message_bytes)


def by(carrier: HostStaging, group: Group, wire: str, scales: str, width: int, pieces: int) -> WireSum:
    return WireSum(load_backend("gloo"), group, wire_of(wire, scales), width, "gather", pieces, carrier)


def ones(group: Group, carrier: HostStaging, pieces: int = 1) -> Callable[[float, int], Tensor]:
    """Sums of rows that are one number, times the rank's own plus one; exact in INT8."""
    summing = by(carrier, group, "int8", "token", WIDTH, pieces)
    return lambda value, rows: summing.sum(torch.full((rows, WIDTH), value * (group.rank + 1)))


def sum_of(value: float, ranks: int) -> float:
    return value * ranks * (ranks + 1) / 2


def close_to(found: Tensor, value: float, ranks: int) -> bool:
    return bool(((found / sum_of(value, ranks) - 1).abs() < 1e-5).all())


def said_by(carrier: HostStaging) -> str:
    try:
        carrier.check()
    except BoundaryError as error:
        return str(error)
    return ""


def one_cannot(ranks: int) -> str:
    """What each rank is told where the first one cannot make what looks at the flags."""
    group = group_of(ranks)
    real = host_staging._flags

    def flags(*given: Any) -> Any:
        if group.rank == 0:
            raise OSError("no such launcher")
        return real(*given)

    host_staging._flags = flags
    try:
        HostStaging.make(group, CPU, 1 << 12)
    except (OSError, RefusedError) as error:
        return str(error)
    finally:
        host_staging._flags = real
    return ""


# ---- right ----------------------------------------------------------------------------------------------------------


def beside_the_library(ranks: int) -> dict[str, bool]:
    """By format and pieces: are sums, with and without a norm, the bits of those by the library?"""
    group, carrier = staging(ranks)
    found = {}
    for number, (wire, scales) in enumerate(FORMATS):
        for pieces in (1, 2, 4):
            width = (200, 96, 512)[number % 3]
            case = WireCase((group.rank, ranks), 1 + 5 * (number % 3), width, torch.bfloat16, 100 * number)
            sides = []
            for summing in (
                by(carrier, group, wire, scales, width, pieces),
                wire_sum(ranks, wire, scales, width, "gather"),
            ):
                sides.append([summing.sum(case.mine), *summing.sum_norm(case.mine, case.residual, case.weight, EPS)])
            found[f"{wire} {scales} {pieces}"] = all(map(torch.equal, *sides))
    carrier.check()
    carrier.close()
    return found


def in_any_order(ranks: int, calls: int, seed: int) -> int:
    """Wrong sums of calls of random sizes and numbers of pieces, in halves as they come where graphs are replayed, by
    ranks that are late at random."""
    group, carrier = staging(ranks)
    alike, late, wrong = random.Random(seed), random.Random(f"{seed} {group.rank}"), 0
    sums = {pieces: ones(group, carrier, pieces) for pieces in (1, 2, 4, 8)}
    for call in range(calls):
        carrier._next = alike.randrange(2)
        pieces, rows = alike.choice(list(sums)), alike.randrange(0, 40)
        if late.random() < 0.2:
            time.sleep(late.random() * 0.01)
        wrong += not close_to(sums[pieces](1.0 + call, rows), 1.0 + call, ranks)
    carrier.check()
    return wrong


def read_late(ranks: int, awaits: bool) -> list[bool]:
    """Rank 1 pauses between seeing a flag and reading what it stands for, in one half over and over. Right, by call?"""
    group, carrier = staging(ranks)
    flags, summed = carrier._flags, ones(group, carrier)
    if group.rank == 1:
        inner = flags.await_piece

        def slow(half: int, piece: int) -> None:
            inner(half, piece)
            time.sleep(0.1)

        flags.await_piece = slow  # type: ignore[method-assign]
    if not awaits:
        flags.await_read = lambda half: None  # type: ignore[method-assign]
        carrier.looks = _IMPATIENT
    found = []
    for call in range(5):
        carrier._next = 0
        found.append(close_to(summed(1.0 + call, 3), 1.0 + call, ranks))
    return found


def broken_off(ranks: int) -> list[bool]:
    """Is a sum right behind one that broke off after a piece, in the same half, on all ranks?"""
    group, carrier = staging(ranks)
    summing, found = by(carrier, group, "int8", "token", WIDTH, 2), []
    inner, left = summing._kernels.quantize, [1]

    def quantize(x: Tensor, out: Tensor) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        inner(x, out)

    summing._kernels.quantize = quantize  # type: ignore[method-assign]
    for call in range(3):
        left[0], carrier._next = 1, 0
        try:
            summing.sum(torch.full((4, WIDTH), -1.0))
        except KeyboardInterrupt:
            found.append(True)
        left[0], carrier._next = 2, 0
        found.append(close_to(summing.sum(torch.full((4, WIDTH), (call + 1.0) * (group.rank + 1))), call + 1.0, ranks))
    carrier.check()
    return found


# ---- given up -------------------------------------------------------------------------------------------------------


def hangs(ranks: int, pieces: int, seconds: float) -> tuple[list[str], str, float]:
    """(what each of five calls came to, what `check` says, how long the longest took); the last rank is late by so long
    in the third."""
    group, carrier = staging(ranks)
    carrier.looks = _IMPATIENT
    summed, found, longest = ones(group, carrier, pieces), [], 0.0
    for call in range(5):
        if call == 2 and group.rank == ranks - 1:
            time.sleep(seconds)
        began = time.monotonic()
        out = summed(1.0 + call, 8)
        longest = max(longest, time.monotonic() - began)
        found.append(verdict(out, 1.0 + call, ranks))
    return found, said_by(carrier), longest


def verdict(found: Tensor, value: float, ranks: int) -> str:
    if close_to(found, value, ranks):
        return "right"
    return "spoiled" if bool(found.isnan().all()) else "wrong"


def wandering(ranks: int, seed: int) -> list[str]:
    """What calls come to by ranks that are late by about their patience: pieces that are not right are NaN."""
    group, carrier = staging(ranks)
    alike, late = random.Random(seed), random.Random(f"{seed} {group.rank}")
    carrier.looks = 160
    sums, found = {pieces: ones(group, carrier, pieces) for pieces in (1, 2)}, []
    for call in range(12):
        carrier._next = alike.randrange(2)
        if late.random() < 0.3:
            time.sleep(late.random() * 0.06)
        pieces = alike.choice([1, 2])
        parts = sums[pieces](1.0 + call, 4).chunk(pieces)
        found.append(" ".join(verdict(part, 1.0 + call, ranks) for part in parts))
    return found


def overwritten(ranks: int) -> list[str]:
    """What a call of rank 1 comes to that has seen the flag of rank 0, and reads when that has given up and gone on."""
    group, carrier = staging(ranks)
    flags, summed = carrier._flags, ones(group, carrier)
    found = [verdict(summed(1.0, 3), 1.0, ranks)]
    carrier._next = 1
    if group.rank == 0:
        carrier.looks = 200
    else:
        inner = flags.await_piece

        def slow(half: int, piece: int) -> None:
            inner(half, piece)
            time.sleep(1.0)

        flags.await_piece = slow  # type: ignore[method-assign]
    for call in range(3):
        carrier._next = 1
        found.append(verdict(summed(2.0 + call, 3), 2.0 + call, ranks))
    return found


def ends(ranks: int, pieces: int) -> tuple[list[str], str]:
    """As `hangs`, in processes of their own: the last rank's ends before the third call."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    group = Group("tp", dist.group.WORLD, ranks, int(os.environ["RANK"]))
    carrier = HostStaging.make(group, CPU, 1 << 14)
    carrier.looks = _IMPATIENT
    summed, found = ones(group, carrier, pieces), []
    for call in range(4):
        if call == 2 and group.rank == ranks - 1:
            return found, said_by(carrier)
        found.append(verdict(summed(1.0 + call, 8), 1.0 + call, ranks))
    return found, said_by(carrier)


def spoiled(ranks: int) -> dict[str, bool]:
    """By format: are sums, and norms, of what has not come NaN, all of them?"""
    found = {}
    for wire, scales in FORMATS:
        group, carrier = staging(ranks)
        summing = by(carrier, group, wire, scales, 200, 1)
        carrier.looks = 1
        carrier._flags.tell = lambda half, piece: None  # type: ignore[method-assign]
        x = torch.ones(3, 200, dtype=torch.bfloat16)
        out = summing.sum(x), *summing.sum_norm(x, x, x[0], EPS)
        found[f"{wire} {scales}"] = all(bool(each.isnan().all()) for each in out)
    return found


# ---- refused --------------------------------------------------------------------------------------------------------


def elsewhere(ranks: int, what: str) -> str:
    """What is said where the last rank's process is another one where its peers look."""
    from commplan.runtime.kernels.staged import memory

    group = group_of(ranks)
    getpid, fallocate = os.getpid, os.posix_fallocate
    made = memory._made

    def full(*_: Any) -> None:
        raise OSError(28, "")

    if group.rank == ranks - 1:
        if what == "nobody":
            os.getpid = lambda: 2**22 + 1  # more than there are
        elif what == "another":
            os.getpid = os.getppid
        elif what == "token":
            memory._made = lambda size, token: (made(size, [7, 7])[0], (0, 0, 0))  # the name alone is looked at first
            memory._name = lambda token: "commplan"
        else:
            os.posix_fallocate = full
    elif what == "token":
        memory._name = lambda token: "commplan"
    try:
        HostStaging.make(group, CPU, 100)
    except RefusedError as error:
        return str(error)
    finally:
        os.getpid, os.posix_fallocate, memory._made = getpid, fallocate, made
        import importlib

        importlib.reload(memory)
    return ""


def not_received(ranks: int) -> str:
    """What is said where rank 0 reads other bytes than rank 1 has written."""
    inner = HostStaging._copy
    if group_of(ranks).rank == 0:
        HostStaging._copy = staticmethod(lambda to, what: to.fill_(7))  # type: ignore[method-assign]
    try:
        HostStaging.make(group_of(ranks), CPU, 100)
    except RefusedError as error:
        return str(error)
    finally:
        HostStaging._copy = staticmethod(inner)  # type: ignore[method-assign]
    return ""


def refusals(ranks: int) -> list[str]:
    """What is said of two shots, of too many pieces, of rows that do not fit; and whether the next sum is right."""
    group, carrier = staging(ranks, 64 * (WIDTH + 16))
    said = []
    for call in (
        lambda: WireSum(load_backend("gloo"), group, wire_of("int8", "token"), WIDTH, "two_shot", 1, carrier),
        lambda: by(carrier, group, "int8", "token", WIDTH, 9),
        lambda: ones(group, carrier)(1.0, 200),
        lambda: HostStaging.make(Group("tp", None, 1, 0), CPU, 100),
        lambda: HostStaging.make(group, CPU, 2**31),
    ):
        try:
            call()
        except RefusedError as error:
            said.append(str(error))
    said.append(verdict(ones(group, carrier)(3.0, 64), 3.0, ranks))
    return said
