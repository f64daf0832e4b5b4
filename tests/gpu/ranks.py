"""What runs on each rank: the kernels against float64, on inputs that every rank can make for all ranks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from commplan.runtime.kernels.compile_ahead import compiled_ahead
from commplan.runtime.kernels.peer_impls import Room
from commplan.runtime.kernels.peer_kernels import PeerKernels
from commplan.runtime.ranks.groups import Group

from ..late_peers import ROWS, WIDTH, Fault, Meeting, call_of, finite_memory, kinds, said_by, verdicts, wandering
from ..peer_cases import EPS, Case, rows_of, shard_of

# Relative RMS error allowed, in units of the type's epsilon for what is rounded to it, absolute for INT8.
IMPATIENT = 20_000  # looks: about ten milliseconds
DTYPES = {"bf16": (torch.bfloat16, 2.0**-8), "fp16": (torch.float16, 2.0**-11)}


def start() -> tuple[int, int, torch.device]:
    """(rank, world, device) of a rank with its process group up; ranks that share a GPU have no NCCL."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if dist.is_initialized():
        return rank, world, torch.device("cuda", torch.cuda.current_device())
    shared = torch.cuda.device_count() < world
    device = torch.device("cuda", rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    if shared:
        os.environ |= {"TORCH_SYMM_MEM_ALLOW_OVERLAPPING_DEVICES": "1", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1"}
    dist.init_process_group("gloo" if shared else "nccl", device_id=None if shared else device)
    return rank, world, device


def in_turn(claims: list[tuple[str, Callable[..., Any], tuple[Any, ...]]]) -> dict[str, Any]:
    """What each function gives on this rank, by name: one process group for all of them."""
    found = {}
    for name, function, given in claims:
        found[name] = function(*given)
        torch.cuda.synchronize()
        dist.barrier()
    return found


def sum_of(parts: list[Tensor]) -> Tensor:
    """The sum in fp32, in the order of the ranks, as our kernels add."""
    total = parts[0].float()
    for part in parts[1:]:
        total = total + part.float()
    return total


def peers_of(dtype: torch.dtype, width: int, rows: int) -> PeerKernels:
    """For `rows` rows of a rank, whatever the op."""
    rank, world = dist.get_rank(), dist.get_world_size()
    room = Room(rows=world * rows, pair_rows=rows, int8_rows=rows, int8_gather_rows=rows, pushed_rows=rows)
    device = torch.device("cuda", torch.cuda.current_device())
    return PeerKernels.make(Group("tp", dist.group.WORLD, world, rank), device, dtype, width, room)


@contextmanager
def ahead(peers: PeerKernels) -> Iterator[None]:
    """What is called in here is compiled, all at once, and not launched: one after the other would take minutes."""
    with compiled_ahead([peers], sharing=dist.get_world_size()):
        yield
    dist.barrier()


def every_op(width: int, dtype_name: str, kind: str) -> list[tuple[int, dict[str, float]]]:
    """Errors of every op at odd and even row counts, and whether the ranks hold the same bits."""
    ranks = start()[:2]
    dtype, _ = DTYPES[dtype_name]
    peers = peers_of(dtype, width, 1000)
    cases = [(rows, Case(ranks, rows, width, dtype, kind, seed=rows * 1000)) for rows in (1, 3, 64, 257, 1000)]
    with ahead(peers):
        for _, case in cases:
            case.errors(peers)
    found = [(rows, case.errors(peers)) for rows, case in cases]
    torch.cuda.synchronize()
    peers.check()
    return found


def same_bits(width: int, rows: int) -> dict[str, bool]:
    """Whether all ranks hold the same result of every op that gives all of them the same rows."""
    ranks = start()[:2]
    peers = peers_of(torch.bfloat16, width, rows)
    case = Case(ranks, rows, width, torch.bfloat16, "outliers", seed=7)
    x, residual, weight = case.mine, case.residual, case.weight
    results = {
        "all_reduce": peers.all_reduce(x),
        "all_reduce_norm": peers.all_reduce_norm(x, residual, weight, EPS)[0],
        "int8 gather": peers.int8_all_reduce(x, "gather"),
        "int8 two_shot": peers.int8_all_reduce(x, "two_shot"),
        "int8 gather norm": peers.int8_all_reduce_norm(x, "gather", residual, weight, EPS)[0],
        "int8 two_shot norm": peers.int8_all_reduce_norm(x, "two_shot", residual, weight, EPS)[0],
    }
    same = {}
    for algorithm in ("one_shot", "two_shot"):
        wanted, old = peers.all_reduce_norm(x, residual, weight, EPS, algorithm), residual.clone()
        found = peers.all_reduce_norm(x, old, weight, EPS, algorithm, overwrite=True)
        same[f"overwriting, {algorithm}"] = found[1] is old and all(map(torch.equal, found, wanted))
    for name, mine in results.items():
        first = mine.clone()
        dist.broadcast(first, 0)
        same[name] = bool(torch.equal(first, mine))
    return same


def not_finite(value: float, at: int) -> dict[str, tuple[bool, bool]]:
    """(every row with `value` on some rank holds something not finite, every other row is right), by op."""
    rank, world, _ = start()
    width, rows = 1536, world + 6
    peers = peers_of(torch.bfloat16, width, rows)
    case = Case((rank, world), rows, width, torch.bfloat16, "normal", seed=3)
    x = case.mine.clone()
    bad = 2 + rank  # another row on each rank
    x[bad, at] = value
    found = {}
    for name, run in (
        ("all_reduce", lambda: peers.all_reduce(x)),
        ("int8 gather", lambda: peers.int8_all_reduce(x, "gather")),
        ("int8 two_shot", lambda: peers.int8_all_reduce(x, "two_shot")),
        ("all_reduce_norm", lambda: peers.all_reduce_norm(x, case.residual, case.weight, EPS)[0]),
        ("int8 gather norm", lambda: peers.int8_all_reduce_norm(x, "gather", case.residual, case.weight, EPS)[0]),
    ):
        out = run()
        spoilt = ~torch.isfinite(out).all(dim=1)
        wanted = torch.zeros(rows, dtype=torch.bool, device="cuda")
        wanted[2 : 2 + world] = True
        found[name] = (bool(spoilt[wanted].all()), bool((spoilt == wanted).all()))
    torch.cuda.synchronize()
    peers.check()
    return found


def stress(calls: int) -> dict[str, Any]:
    """Random ops of random sizes with ranks that are late by random times: wrong results by op, growth of memory."""
    rank, world, _ = start()
    width, most = 1024, 300
    peers = peers_of(torch.bfloat16, width, most)
    pool = [[rows_of(100 * k + r, most, width, torch.bfloat16) for r in range(world)] for k in range(8)]
    weight = rows_of(5, 1, width, torch.bfloat16)[0]
    with ahead(peers):
        for rows in (1, most):
            Case((rank, world), rows, width, torch.bfloat16, "normal", seed=0).errors(peers)
    sums = [sum_of(xs).to(torch.bfloat16) for xs in pool]
    int8 = [peers.int8_all_reduce(xs[rank], "gather") for xs in pool]
    wrong = torch.zeros(8, dtype=torch.int64, device="cuda")  # by op
    generator = torch.Generator().manual_seed(1)  # alike on all ranks
    late = torch.Generator().manual_seed(rank)
    memory = None
    for call in range(calls):
        k, op = (int(v) for v in torch.randint(0, 8, (2,), generator=generator))
        rows = int(torch.randint(1, most + 1, (1,), generator=generator)) if call % 3 else 1 + call % 7
        x = pool[k][rank][:rows]
        if int(torch.randint(0, 4, (1,), generator=late)) == 0:
            torch.cuda._sleep(int(torch.randint(0, 40_000, (1,), generator=late)))
        if op in (0, 1):
            wrong[op] += (peers.all_reduce(x) != sums[k][:rows]).any()
        elif op == 2:
            wrong[op] += (peers.int8_all_reduce(x, "gather") != int8[k][:rows]).any()
        elif op == 3:
            # Which rank owns a row depends on the number of rows, and the owner's part is not quantised.
            out, wanted = peers.int8_all_reduce(x, "two_shot").float(), sums[k][:rows].float()
            wrong[op] += (out - wanted).norm() > 0.02 * wanted.norm()
            del out, wanted  # what is still held would count as growth
        elif op == 4:
            wrong[op] += (peers.reduce_scatter(x) != shard_of(sums[k][:rows], rank, world)).any()
        elif op == 5:
            wrong[op] += (peers.all_gather(x) != torch.cat([pool[k][r][:rows] for r in range(world)])).any()
        elif op == 6:
            wrong[op] += (peers.all_reduce_norm(x, None, weight, EPS)[1] != sums[k][:rows]).any()
        else:
            wrong[op] += (peers.int8_all_reduce_norm(x, "gather", None, weight, EPS)[1] != int8[k][:rows]).any()
        if call == 100:
            torch.cuda.synchronize()
            memory = torch.cuda.memory_allocated()
    torch.cuda.synchronize()
    peers.check()
    return {"wrong": wrong.tolist(), "grown": torch.cuda.memory_allocated() - (memory or 0)}


def graphs(replays: int) -> int:
    """Wrong results of a graph with an odd number of calls, replayed with new inputs, other calls between."""
    rank, world, _ = start()
    width, rows = 2112, 33
    peers = peers_of(torch.bfloat16, width, 64)
    x = torch.empty(rows, width, dtype=torch.bfloat16, device="cuda")
    peers.all_reduce(x), peers.int8_all_reduce(x, "gather")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        first = peers.all_reduce(x)
        second = peers.all_reduce(first)
        small = peers.int8_all_reduce(x, "gather")
        third = peers.all_gather(second)
    wrong = 0
    for replay in range(replays):
        parts = [rows_of(10 * replay + r, rows, width, torch.bfloat16) for r in range(world)]
        x.copy_(parts[rank])
        graph.replay()
        once = sum_of(parts).to(torch.bfloat16)
        twice = sum_of([once] * world).to(torch.bfloat16)
        wrong += not torch.equal(first, once)
        wrong += not torch.equal(third, torch.cat([twice] * world))
        wrong += not torch.equal(small, peers.int8_all_reduce(parts[rank], "gather"))
    peers.check()
    return wrong


def between_kernels(calls: int, captured: bool) -> int:
    """Wrong results where a GEMM writes the rows just before a call, another call reads its result, and a kernel spoils
    the rows just behind it."""
    rank, world, _ = start()
    width, rows, kinds_of_rows = 5120, 4, 4
    peers = peers_of(torch.bfloat16, width, 64)
    right = rows_of(99, 512, width, torch.bfloat16)
    left = [[rows_of(10 * k + r, rows, 512, torch.bfloat16) for r in range(world)] for k in range(kinds_of_rows)]
    parts = [[torch.mm(one, right) for one in lefts] for lefts in left]
    once = [sum_of(p).to(torch.bfloat16) for p in parts]
    twice = [sum_of([o] * world).to(torch.bfloat16) for o in once]
    weight = torch.ones(width, dtype=torch.bfloat16, device="cuda")
    x = torch.empty(rows, width, dtype=torch.bfloat16, device="cuda")

    def sequence(k: int) -> tuple[Tensor, Tensor]:
        torch.mm(left[k][rank], right, out=x)
        first = peers.all_reduce(x)
        _, second = peers.all_reduce_norm(first, None, weight, EPS)
        x.fill_(float("nan"))
        return first, second

    wrong = torch.zeros(1, dtype=torch.int64, device="cuda")

    def judge(k: int, found: tuple[Tensor, Tensor]) -> None:
        wrong.add_((found[0] != once[k]).any()).add_((found[1] != twice[k]).any())

    judge(0, sequence(0))
    torch.cuda.synchronize()
    if not captured:
        for call in range(calls):
            judge(call % kinds_of_rows, sequence(call % kinds_of_rows))
    else:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = [sequence(k) for k in range(kinds_of_rows)]
        for _ in range(calls // kinds_of_rows):
            for one in found:
                one[0].fill_(7.0), one[1].fill_(7.0)
            graph.replay()
            for k, one in enumerate(found):
                judge(k, one)
    torch.cuda.synchronize()
    peers.check()
    return int(wrong.item())


def compiled() -> dict[str, bool]:
    """Whether torch.compile gives the same but for roundings, for several sizes from one graph."""
    rank, _, _ = start()
    width = 1024
    peers = peers_of(torch.bfloat16, width, 128)
    weight = rows_of(5, 1, width, torch.bfloat16)[0]

    def block(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        out, total = peers.int8_all_reduce_norm(x, "gather", residual, weight, EPS)
        shard, _ = peers.reduce_scatter_norm(out * 2, None, weight, EPS)
        return peers.all_gather(shard), peers.all_reduce(total + 1)

    fast = torch.compile(block, fullgraph=True, dynamic=True)
    found = {}
    for rows in (6, 32, 128):
        x, residual = rows_of(rows + rank, rows, width, torch.bfloat16), rows_of(9, rows, width, torch.bfloat16)
        found[f"{rows} rows"] = all(
            torch.allclose(a.float(), b.float(), rtol=0.02, atol=0.02)
            for a, b in zip(block(x, residual), fast(x, residual), strict=True)
        )
    return found


def dead_peer() -> tuple[bool, str]:
    """The last rank never calls: (the others' results are NaN, what their checks say). Only the first call waits."""
    rank, world, _ = start()
    peers = peers_of(torch.bfloat16, 1024, 8)
    x = rows_of(rank, 4, 1024, torch.bfloat16)
    weight = torch.ones(1024, dtype=torch.bfloat16, device="cuda")
    peers.all_reduce(x), peers.all_reduce_norm(x, None, weight, EPS)  # compiled on both, with all patience
    torch.cuda.synchronize()
    dist.barrier()
    if rank == world - 1:
        dist.barrier()
        return True, ""
    with finite_memory():
        peers.looks = IMPATIENT
        outs = [peers.all_reduce(x)]
        peers.looks = 1 << 26
        outs += [peers.all_reduce_norm(x, None, weight, EPS)[0] for _ in range(100)]
    torch.cuda.synchronize()
    text = said_by(peers)
    dist.barrier()
    return all(bool(torch.isnan(out).all()) for out in outs), text


def made_under_a_default_device() -> bool:
    """Whether kernels are made, and right, where new tensors are on the GPU unless said otherwise, as in servers."""
    rank, world, _ = start()
    with torch.device("cuda"):
        peers = peers_of(torch.bfloat16, 64, 8)
        case = Case((rank, world), 4, 64, torch.bfloat16, "normal", seed=3)
        return all(error < 0.05 for error in case.errors(peers).values())


def faulty(folder: str, faults: list[tuple[str, str, Fault]]) -> list[tuple[str, list[str], str]]:
    """(where, what each call of this rank came to, what its check says), for (folder, op, fault)."""
    rank, world, _ = start()
    compile_all(rank, world)
    found = []
    with finite_memory():
        for name, op, fault in faults:
            peers = peers_of(torch.bfloat16, WIDTH, ROWS)
            meeting = Meeting(Path(folder, name), rank)
            done = verdicts(peers, kinds(world)[op], fault, meeting, (rank, world), IMPATIENT)
            found.append((name, done, said_by(peers)))
            meeting.all("judged", world)
            peers.close()
    return found


def at_random_times(seeds: int) -> list[list[str]]:
    """What each call of this rank came to, by seed, where ranks are late by about their patience."""
    rank, world, _ = start()
    compile_all(rank, world)
    found = []
    with finite_memory():
        for seed in range(seeds):
            peers = peers_of(torch.bfloat16, WIDTH, ROWS)
            found.append(wandering(peers, (rank, world), IMPATIENT, seed, longest_s=0.03))
            dist.barrier()
            peers.close()
    return found


def compile_all(rank: int, world: int) -> None:
    """Every kernel, so that none is compiled while a peer loses its patience."""
    peers = peers_of(torch.bfloat16, WIDTH, ROWS)
    with ahead(peers):
        for kind in kinds(world).values():
            kind.run(peers, call_of(0, world, "cuda"), rank)
    for kind in kinds(world).values():
        kind.run(peers, call_of(0, world, "cuda"), rank)
    torch.cuda.synchronize()
    peers.check()
    dist.barrier()


def few_of_each(calls: int) -> bool:
    """A few calls of every op and kernel, judged; for a sanitizer, under which all is slow."""
    rank, world, _ = start()
    peers = peers_of(torch.bfloat16, 2112, 300)
    right = True
    for call in range(calls):
        case = Case((rank, world), (1, 300, 33)[call % 3], 2112, torch.bfloat16, "normal", seed=call)
        right &= all(error < 0.05 for error in case.errors(peers).values())
    torch.cuda.synchronize()
    peers.check()
    return right
