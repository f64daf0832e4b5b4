"""Our kernels without GPUs: Triton's interpreter on every rank, and the ranks' buffers in files that all of them map.

Every rank is a process of its own, and rows really travel and are really awaited. What it cannot show: races inside a
program, the memory order of a GPU and its link, and anything about time. Programs of a rank run one after another.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from commplan.runtime.kernels.peer_impls import Room
from commplan.runtime.kernels.room import half_bytes, pushed_bytes

from ...late_peers import Fault, Meeting, finite_memory, kinds, said_by, verdicts, wandering
from ...peer_cases import EPS, Case


def room_for(world: int, rows: int) -> Room:
    """For `rows` rows of a rank, whatever the op."""
    return Room(rows=world * rows, pair_rows=rows, int8_rows=rows, int8_gather_rows=rows)


def make_buffers(folder: Path, world: int, rows: int, width: int) -> None:
    """Every rank's empty workspaces, as large as those on GPUs."""
    plain_bytes, small_bytes = half_bytes(world, width, room_for(world, rows))
    (folder / "shape").write_text(f"{rows} {width}")
    for rank in range(world):
        (folder / f"plain{rank}").write_bytes(b"\x00\x80" * plain_bytes)  # two halves of int16 -32768
        (folder / f"small{rank}").write_bytes(b"\x80" * (2 * small_bytes))
        (folder / f"pushed{rank}").write_bytes(bytes(2 * pushed_bytes(world, width, rows)))


def all_empty(folder: Path, world: int) -> bool:
    """Whether every buffer is as it was made."""
    found = True
    for rank in range(world):
        plain, small = ((folder / f"{name}{rank}").read_bytes() for name in ("plain", "small"))
        found &= plain == b"\x00\x80" * (len(plain) // 2) and small == b"\x80" * len(small)
    return found


def emulated(folder: str) -> tuple[int, int, Any]:
    """(rank, world, kernels) of this process."""
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    torch.set_num_threads(1)
    from commplan.runtime.kernels.peer_kernels import PeerKernels
    from commplan.runtime.kernels.pushed import Pushed
    from commplan.runtime.kernels.symmetric import Workspace
    from commplan.runtime.ranks.groups import Group

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    state, error = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int32)

    def workspace(name: str, dtype: torch.dtype) -> Workspace:
        paths = [Path(folder) / f"{name}{r}" for r in range(world)]
        size = paths[0].stat().st_size
        maps = [torch.from_file(str(p), shared=True, size=size // dtype.itemsize, dtype=dtype) for p in paths]
        peers = torch.tensor([m.data_ptr() for m in maps], dtype=torch.int64)
        return Workspace(size // 2, peers, maps, tuple(maps))

    group = Group("tp", None, world, rank)
    plain, small = workspace("plain", torch.int16), workspace("small", torch.int8)
    rows, width = (int(number) for number in Path(folder, "shape").read_text().split())
    uses = torch.zeros(2, dtype=torch.int64)
    pushed = Pushed(group, workspace("pushed", torch.int8), rows, width, uses, state, error)
    return rank, world, PeerKernels(group, plain, small, state, error, pushed)


def every_op(
    folder: str, sizes: list[int], width: int, dtype: torch.dtype, as_one_of_many: bool = False
) -> list[tuple[int, dict[str, float]]]:
    """Errors of every op by row count; rows are cut as those of few, or as those of many."""
    rank, world, peers = emulated(folder)
    if as_one_of_many:
        from commplan.runtime.kernels.row_launch import Tuning

        peers.tune(Tuning(few=0))
    found = []
    for rows in sizes:
        case = Case((rank, world), rows, width, dtype, "normal", 1000 * rows, "cpu")
        found.append((rows, case.errors(peers)))
    peers.check()
    return found


def bits(folder: str, width: int) -> list[bytes]:
    """Results that all ranks must share to the bit, in two shots too."""
    rank, world, peers = emulated(folder)
    from commplan.runtime.kernels import room

    case = Case((rank, world), 5, width, torch.bfloat16, "outliers", 11, "cpu")
    x, residual, weight = case.mine, case.residual, case.weight
    found = [
        peers.all_reduce(x),
        peers.int8_all_reduce(x, "gather"),
        peers.int8_all_reduce_norm(x, "two_shot", residual, weight, EPS)[0],
        peers.all_reduce(x, "two_shot"),
        peers.all_reduce_norm(x, residual, weight, EPS, "two_shot")[0],
    ]
    room._ONE_SHOT_BYTES.clear()
    room._ONE_SHOT_BYTES_ELSE = 0
    found += [peers.all_reduce(x), peers.all_reduce_norm(x, residual, weight, EPS)[0]]
    return [out.view(torch.int16).numpy().tobytes() for out in found]


def overwriting(folder: str) -> list[tuple[tuple[str, ...], bool]]:
    """(op, whether the new residual stands in the old one's memory, with the same bits as elsewhere)."""
    rank, world, peers = emulated(folder)
    case = Case((rank, world), 5, 64, torch.bfloat16, "normal", 11, "cpu")
    x, whole, weight = case.mine, case.residual, case.weight
    found = []
    for op, *argument in (
        ("all_reduce", "one_shot"),
        ("all_reduce", "two_shot"),
        ("int8_all_reduce", "gather"),
        ("int8_all_reduce", "two_shot"),
        ("reduce_scatter",),
    ):
        call = partial(getattr(peers, f"{op}_norm"), x, weight_H=weight, eps=EPS)
        before = whole if argument else whole[: -(-len(whole) // world)]
        given = {"algorithm": argument[0]} if argument else {}
        name = "residual_TH" if argument else "residual_SH"
        wanted, old = call(**{name: before}, **given), before.clone()
        got = call(**{name: old}, **given, overwrite=True)
        same = all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
        found.append(((op, *argument), same and got[1].data_ptr() == old.data_ptr()))
    return found


def not_finite(folder: str, value: float) -> list[bool]:
    """Whether a value that is not finite spoils its own row and no other, by op."""
    rank, world, peers = emulated(folder)
    case = Case((rank, world), 4, 64, torch.bfloat16, "normal", 3, "cpu")
    x = case.mine.clone()
    if rank == 0:
        x[2, 17] = value
    runs: list[Callable[[], Tensor]] = [
        lambda: peers.all_reduce(x),
        lambda: peers.int8_all_reduce(x, "gather"),
        lambda: peers.int8_all_reduce(x, "two_shot"),
        lambda: peers.int8_all_reduce_norm(x, "gather", case.residual, case.weight, EPS)[0],
    ]
    found = []
    for run in runs:
        finite = torch.isfinite(run())
        found.append(not bool(finite[2, 17]) and bool(finite[[0, 1, 3]].all()))
    return found


def next_to_nothing(folder: str) -> list[tuple[bool, bytes]]:
    """Rows of values whose inverse fp32 has not, in INT8: whether nothing is left of them, and the bits, by op."""
    _, world, peers = emulated(folder)
    x = torch.full((3, 64), 1e-37, dtype=torch.bfloat16)
    x[1] = 3.0
    found = []
    for algorithm in ("gather", "two_shot"):
        out = peers.int8_all_reduce(x, algorithm)
        right = bool((out[1] == 3.0 * world).all()) and bool((out[[0, 2]].abs() < 1e-36).all())
        found.append((right, out.view(torch.int16).numpy().tobytes()))
    return found


def dead_peer(folder: str) -> tuple[bool, str]:
    """Rank 1 never calls: whether rank 0 gets nothing but NaN, and what its check says.

    Of what rank 0 calls after the first that was given up, nothing waits: it would for hours.
    """
    rank, world, peers = emulated(folder)
    if rank == 1:
        return True, ""
    peers.looks = 50
    case = Case((rank, world), 2, 64, torch.bfloat16, "normal", 3, "cpu")
    outs = [peers.all_reduce(case.mine), peers.int8_all_reduce(case.mine, "gather")]
    peers.looks = 1 << 30
    outs += [peers.reduce_scatter(case.mine), *peers.all_reduce_norm(case.mine, None, case.weight, EPS)]
    outs += [peers.int8_all_reduce(case.mine, "two_shot")] * 8
    return all(bool(torch.isnan(out).all()) for out in outs), said_by(peers)


def compiled(folder: str) -> list[bool]:
    """Whether a compiled function makes the same calls, for several sizes from one graph."""
    rank, world, peers = emulated(folder)
    width = 64
    weight = torch.ones(width, dtype=torch.bfloat16)

    def block(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        out, total = peers.int8_all_reduce_norm(x, "gather", residual, weight, EPS)
        shard, _ = peers.reduce_scatter_norm(out * 2, None, weight, EPS)
        return peers.all_gather(shard), peers.all_reduce(total + 1)

    fast = torch.compile(block, fullgraph=True, dynamic=True, backend="aot_eager")
    found = []
    for rows in (2, 5, 6):
        case = Case((rank, world), rows, width, torch.bfloat16, "normal", rows, "cpu")
        pairs = zip(block(case.mine, case.residual), fast(case.mine, case.residual), strict=True)
        found.append(all(torch.equal(a, b) for a, b in pairs))
    return found


def faulty(folder: str, faults: list[tuple[str, str, Fault]]) -> list[tuple[str, list[str], str]]:
    """(where, what each call of this rank came to, what its check says), for (folder, op, fault)."""
    found = []
    with finite_memory():
        for name, op, fault in faults:
            rank, world, peers = emulated(f"{folder}/{name}")
            meeting = Meeting(Path(folder, name), rank)
            kind = kinds(world)[op]
            done = verdicts(peers, kind, fault, meeting, (rank, world), looks=20)
            found.append((name, done, said_by(peers)))
    return found


def at_random_times(folder: str, seeds: int) -> list[list[str]]:
    """What each call of this rank came to, by seed, where ranks are late by about their patience."""
    found = []
    with finite_memory():
        for seed in range(seeds):
            rank, world, peers = emulated(f"{folder}/{seed}")
            Meeting(Path(folder, str(seed)), rank).all("ready", world)
            found.append(wandering(peers, (rank, world), looks=20, seed=seed, longest_s=0.1))
    return found


def stopped_inside(folder: str) -> list[list[float]]:
    """Rank 2 of 3 stops in its first call, between sending and receiving; the others go on. Column 0 of all results."""
    rank, _, peers = emulated(folder)
    from commplan.runtime.kernels import one_shot

    meeting = Meeting(Path(folder), rank)
    inner = one_shot.sum_of_ranks

    def stop(*args: Any) -> Any:
        one_shot.sum_of_ranks = inner
        for other in (0, 1):
            meeting.hear("gone on", other)
        return inner(*args)

    if rank == 2:
        one_shot.sum_of_ranks = stop
    results = []
    for number, algorithm in enumerate(("gather", "two_shot", "gather")):
        x = torch.full((1, 64), 10.0**number * (rank + 1), dtype=torch.bfloat16)
        peers.looks = 20 if number and rank == 0 else 300 if number else 1 << 30
        results.append(peers.int8_all_reduce(x, algorithm)[:, 0].tolist())
    meeting.say("gone on")
    return results
