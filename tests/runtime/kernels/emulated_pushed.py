"""Rows pushed in pieces, in Triton's interpreter: ranks are processes, and what is pushed lands in files they share."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...late_peers import Meeting, said_by
from ...peer_cases import EPS, Case, error, normed
from .emulated_peers import emulated


def in_small_pieces(folder: str, tile: int = 1, flags: int = 4) -> tuple[tuple[int, int], Any]:
    """((rank, world), peers), whose messages go in pieces of some blocks, the last of about one.

    With four flags eight rows have blocks of two, and go in pieces of two, four and two rows.
    """
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    from commplan.runtime.kernels import pushed

    pushed.PIECE_ROWS, pushed._TILE, pushed.FLAGS = tile, tile, flags
    rank, world, peers = emulated(folder)
    return (rank, world), peers


def there(*_: int) -> None:
    """In place of what makes rows: they are there, and go in pieces all the same."""


def _bytes(*tensors: Tensor) -> bytes:
    return b"".join(t.view(torch.int16).numpy().tobytes() for t in tensors)


def sums(
    folder: str, sizes: list[int], width: int, dtype: torch.dtype, tile: int
) -> list[tuple[int, float, bool, bytes]]:
    """(rows, the largest error, whether bits are those of one kernel that sends rows itself, the bits) of sums that
    are asked for in one go, with and without the norm; more rows and pieces, and fewer, in turn."""
    ranks, peers = in_small_pieces(folder, tile)
    found = []
    for number, rows in enumerate(sizes):
        case = Case(ranks, rows, width, dtype, "outliers", 100 * number, "cpu")
        peers.push(case.mine, None, there)
        out, total = peers.all_reduce_norm(case.mine, case.residual, case.weight, EPS, "pushed")
        peers.push(case.mine, None, there)
        folded = peers.all_reduce_norm(case.mine, None, case.weight, EPS, "pushed")
        bare = peers.all_reduce(case.mine, "pushed")  # whole: nobody has pushed it
        wanted = peers.all_reduce_norm(case.mine, case.residual, case.weight, EPS, "one_shot")
        same = torch.equal(out, wanted[0]) and torch.equal(total, wanted[1])
        same &= torch.equal(folded[1], bare) and torch.equal(bare, peers.all_reduce(case.mine, "one_shot"))
        worst = max(error(out, normed(case.total, case.weight)), error(total, case.total), error(bare, case.sum))
        found.append((rows, worst, same, _bytes(out, total, bare)))
    peers.check()
    return found


def made_in_pieces(folder: str) -> list[tuple[bool, bool, list[tuple[int, int]]]]:
    """(whether the result is right, whether the memory of the rows was overwritten, what was made), of messages whose
    rows are there only when they are made; halves are those of two boundaries, and the same one twice around a sum."""
    ranks, peers = in_small_pieces(folder)
    found = []
    for number, half in enumerate((0, 1, 0, 0)):
        case = Case(ranks, 8, 64, torch.bfloat16, "normal", 100 * number, "cpu")
        x = torch.full_like(case.mine, float("nan"))
        made: list[tuple[int, int]] = []

        def make(first: int, last: int, x: Tensor = x, case: Case = case, made: Any = made) -> None:
            x[first:last] = case.mine[first:last]
            made.append((first, last))

        peers.push(x, half, make)
        before = case.residual.clone()
        out, total = peers.all_reduce_norm(x, before, case.weight, EPS, "pushed", overwrite=True)
        right = max(error(out, normed(case.total, case.weight)), error(total, case.total)) < 2.0**-7
        found.append((right, total.data_ptr() == before.data_ptr(), made))
        if number == 2:
            peers.all_reduce(case.mine)
    peers.check()
    return found


def refusals(folder: str) -> list[str]:
    """What is said of rows that do not fit, of other rows than those pushed, and of Peers without room."""
    from commplan.runtime.errors import BoundaryError, RefusedError

    _, peers = in_small_pieces(folder)
    x = torch.ones(4, 64, dtype=torch.bfloat16)
    said = []
    for call in (
        lambda: peers.push(torch.ones(9, 64, dtype=torch.bfloat16)),
        lambda: peers.push(torch.ones(4, 32, dtype=torch.bfloat16)),
        lambda: peers.push(torch.ones(4, 64)),
        lambda: (peers.push(x), peers.all_reduce(x.clone(), "pushed")),
    ):
        try:
            call()
        except (RefusedError, BoundaryError) as error:
            said.append(str(error))
    peers._pushed = None
    try:
        peers.all_reduce(x[:3], "pushed")
    except RefusedError as error:
        said.append(str(error))
    return said


def replayed(folder: str) -> bool:
    """A call replayed as a graph would be: nothing on the host is asked again, every use has other flags."""
    ranks, peers = in_small_pieces(folder)
    right = True
    for number in range(5):  # an odd number of uses of either half
        case = Case(ranks, 7, 64, torch.bfloat16, "normal", 100 * number, "cpu")
        for half in (0, 1):
            peers.push(case.mine, half, there)
            right &= error(peers.all_reduce(case.mine, "pushed"), case.sum) < 2.0**-7
    return right


def fewer_pieces_between(folder: str) -> bool:
    """One half used for many pieces, for one, for many again; rank 1 is late with the second of these. Is it right?"""
    (rank, world), peers = in_small_pieces(folder)
    right = True
    for number, rows in enumerate((8, 1, 8)):
        case = Case((rank, world), rows, 64, torch.bfloat16, "normal", 100 * number, "cpu")
        late = rank == 1 and number == 2
        peers.push(case.mine, 0, lambda first, _, late=late: time.sleep(1.0) if late and first else None)
        right &= error(peers.all_reduce(case.mine, "pushed"), case.sum) < 2.0**-7
        peers.all_reduce(case.mine)
    return right


def overwritten(folder: str) -> tuple[bool, str]:
    """Rank 0 gives up rank 1 and pushes rows of its next call over those of the first, the flags not yet. (Whether the
    late rank has nothing but NaN of its first call, what its check says.)"""
    (rank, _), peers = in_small_pieces(folder)
    meeting, first, second = Meeting(Path(folder), rank), torch.ones(4, 64), torch.full((4, 64), 9.0)
    if rank == 1:
        meeting.hear("gone on", 0)
    peers.looks = 20
    x = first.bfloat16()
    peers.push(x, 0, there)
    out = peers.all_reduce(x, "pushed")
    if rank == 0:
        places = peers._pushed._places
        places[1] = places[1][0], torch.zeros_like(places[1][1])
        peers.push(second.bfloat16(), 0, there)
        meeting.say("gone on")
    return bool(out.isnan().all()), said_by(peers)


def nothing_to_push(folder: str) -> tuple[bool, list[str]]:
    """(Whether no rows are summed beside others that are pushed, what is said of a sum that was never asked for)."""
    from commplan.runtime.errors import BoundaryError

    ranks, peers = in_small_pieces(folder)
    case, right = Case(ranks, 4, 64, torch.bfloat16, "normal", 5, "cpu"), True
    for half in (0, 1, 0):
        peers.push(case.mine[:0], half, lambda *_: None)
        right &= peers.all_reduce(case.mine[:0], "pushed").shape == (0, 64)
        peers.push(case.mine, half)
        right &= error(peers.all_reduce(case.mine, "pushed"), case.sum) < 2.0**-7
    said = []
    for _ in range(2):
        try:
            peers.push(case.mine, 1)
        except BoundaryError as wrong:
            said.append(str(wrong))
    return right, said


def given_up_elsewhere(folder: str) -> list[bool]:
    """Rank 0 gives up rank 1 in another op, and pushes two messages of one half, of the second the rows alone: the late
    rank may have the first one's sum or NaN, and then NaN."""
    (rank, _), peers = in_small_pieces(folder)
    meeting = Meeting(Path(folder), rank)
    first, second = (torch.full((4, 64), value).bfloat16() for value in (1.0, 9.0))
    peers.looks = 20
    if rank == 0:
        given_up = peers.all_reduce(first, "one_shot")
        found = [bool(given_up.isnan().all())]
        for x in (first, second):
            peers.push(x, 0, there)
            if x is second:
                break
            found.append(bool(peers.all_reduce(x, "pushed").isnan().all()))
            places = peers._pushed._places
            places[1] = places[1][0], torch.zeros_like(places[1][1])
        meeting.say("gone on")
        return found
    meeting.hear("gone on", 0)
    peers.push(first, 0, there)
    out = peers.all_reduce(first, "pushed")
    return [bool(out.isnan().all()), bool(peers.all_reduce(first, "pushed").isnan().all())]


def stopped_inside(folder: str) -> list[bool]:
    """Rank 1 stops when it has seen a flag and before it reads the row. Rank 0 has its rows, gives it up in another op,
    and pushes others over those that it has not read. (Whether results are NaN.)"""
    (rank, _), peers = in_small_pieces(folder)
    from commplan.runtime.kernels import pushed_kernel

    meeting, inner = Meeting(Path(folder), rank), pushed_kernel._await_flag

    def stop(*args: Any) -> Any:
        pushed_kernel._await_flag = inner
        seen = inner(*args)
        meeting.hear("gone on", 0)
        return seen

    if rank == 1:
        pushed_kernel._await_flag = stop
    first, second = (torch.full((2, 64), value).bfloat16() for value in (1.0, 9.0))
    peers.push(first, 0, there)
    found = [bool(peers.all_reduce(first, "pushed").isnan().any())]
    if rank == 0:
        peers.looks = 20
        found.append(bool(peers.all_reduce(first, "one_shot").isnan().all()))
        places = peers._pushed._places
        places[1] = places[1][0], torch.zeros_like(places[1][1])
        peers.push(second, 0, there)
        meeting.say("gone on")
    return found
