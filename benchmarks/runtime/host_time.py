"""What does an eager call of a collective cost the host? One GPU, or two with NCCL and torch beside ours.

    python benchmarks/runtime/host_time.py                  # ours alone on one GPU; with several, a rank on each
    python benchmarks/runtime/host_time.py --compiled       # also through torch.compile, which takes a while

Calls are made in bursts that fit the GPU's queue, each timed by itself; the device is waited for between bursts. With
one GPU the peer is memory of this GPU and sends nothing: what a call costs the host is the same. Medians, us.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

AIM_US, AIM_NORM_US = 15.0, 18.0
BURSTS, CALLS = 20, 50


def measured(call) -> tuple[float, float]:
    """(median, least) us of a call on this host."""
    import torch

    for _ in range(5):
        call()
    torch.cuda.synchronize()
    found = []
    for _ in range(BURSTS):
        for _ in range(CALLS):
            begin = time.perf_counter()
            call()
            found.append(time.perf_counter() - begin)
        torch.cuda.synchronize()
    return statistics.median(found) * 1e6, min(found) * 1e6


def ours(peers, x, residual, weight):
    """{name: call} of every op of a pair."""
    shard, total = residual[: -(-x.shape[0] // 2)], residual.clone()
    return {
        "all_reduce": lambda: peers.all_reduce(x),
        "all_reduce + norm": lambda: peers.all_reduce_norm(x, residual, weight, 1e-6),
        "all_reduce + norm, overwriting": lambda: peers.all_reduce_norm(x, total, weight, 1e-6, overwrite=True),
        "int8 gather": lambda: peers.int8_all_reduce(x, "gather"),
        "int8 gather + norm": lambda: peers.int8_all_reduce_norm(x, "gather", residual, weight, 1e-6),
        "int8 two_shot": lambda: peers.int8_all_reduce(x, "two_shot"),
        "int8 two_shot + norm": lambda: peers.int8_all_reduce_norm(x, "two_shot", residual, weight, 1e-6),
        "reduce_scatter": lambda: peers.reduce_scatter(x),
        "reduce_scatter + norm": lambda: peers.reduce_scatter_norm(x, shard, weight, 1e-6),
        "all_gather": lambda: peers.all_gather(shard),
        "gather_sum": lambda: peers.gather_sum(shard, 1),
        "scatter_sum": lambda: peers.scatter_sum(x[: 2 * (x.shape[0] // 2)], 1),
    }


def parts(peers, x):
    """What a call is made of."""
    import torch
    from triton.runtime import driver

    out, device = torch.empty_like(x), x.get_device()
    peers.all_reduce(x)
    ready = peers._ready["all_reduce", x.shape, x.dtype]
    shape, stride, both = tuple(x.shape), x.stride(), (2, *x.shape)
    return {
        "(its launch)": lambda: ready.start(x, out),
        "(an allocation)": lambda: torch.empty_like(x),
        "(new_empty)": lambda: x.new_empty(shape),
        "(new_empty_strided)": lambda: x.new_empty_strided(shape, stride),
        "(two allocations)": lambda: (torch.empty_like(x), torch.empty_like(x)),
        "(one in two views)": lambda: x.new_empty(both).unbind(0),
        "(the stream of now)": lambda: driver.active.get_current_stream(device),
        "(a kernel of torch)": lambda: torch.neg(x, out=out),
    }


def in_a_graph(peers, x, residual, weight):
    """Through torch.compile: what a call of a function with one op costs, and with eight. The rest is torch's own."""
    import torch

    def sums(count: int):
        def run(rows):
            for _ in range(count):
                rows = peers.all_reduce(rows)
            return rows

        return run

    def normed(count: int):
        def run(rows, total):
            for _ in range(count):
                rows, total = peers.all_reduce_norm(rows, total, weight, 1e-6)
            return rows, total

        return run

    def of_torch(rows):
        return -rows

    found = {"compiled, none of ours": (torch.compile(of_torch, fullgraph=True), (x,))}
    for count in (1, 8):
        of = f"compiled, {count} x"
        found[f"{of} all_reduce"] = torch.compile(sums(count), fullgraph=True), (x,)
        found[f"{of} all_reduce + norm"] = torch.compile(normed(count), fullgraph=True), (x, residual)
    return {name: (lambda run=run, given=given: run(*given)) for name, (run, given) in found.items()}


def rivals(x, residual, weight):
    """NCCL's and torch's, where there is a pair."""
    import torch
    import torch.distributed as dist
    import torch.distributed._symmetric_memory as symmetric_memory

    from commplan.runtime.kernels.add_rms_norm import add_rms_norm

    work = x.clone()
    shared = symmetric_memory.empty(*x.shape, dtype=x.dtype, device=x.device)
    symmetric_memory.rendezvous(shared, dist.group.WORLD)
    group = dist.group.WORLD.group_name

    def nccl_norm():
        dist.all_reduce(work)
        add_rms_norm(work, residual, weight, 1e-6)

    return {
        "NCCL": lambda: dist.all_reduce(work),
        "NCCL + norm": nccl_norm,
        "torch one-shot": lambda: torch.ops.symm_mem.one_shot_all_reduce(shared, "sum", group),
        "torch two-shot": lambda: torch.ops.symm_mem.two_shot_all_reduce_(shared, "sum", group),
    }


def show(name: str, found: tuple[float, float], aim: float | None) -> None:
    verdict = "" if aim is None else f"   aim {aim:.0f} " + ("met" if found[0] <= aim else "MISSED")
    print(f"{name:34s} {found[0]:8.1f} us, least {found[1]:7.1f}{verdict}", flush=True)


def run(peers, hidden: int, rows: int, compiled: bool, pair: bool, shows: bool) -> None:
    import torch

    torch.set_grad_enabled(False)
    x, residual = (torch.randn(rows, hidden, device="cuda").to(torch.bfloat16) for _ in range(2))
    weight = torch.ones(hidden, dtype=torch.bfloat16, device="cuda")
    calls = ours(peers, x, residual, weight)
    for name, call in calls.items():
        found = measured(call)
        if shows:
            show(name, found, AIM_NORM_US if "norm" in name else AIM_US)
    others = parts(peers, x) | (rivals(x, residual, weight) if pair else {})
    if compiled:
        others |= in_a_graph(peers, x, residual, weight)
    for name, call in others.items():
        found = measured(call)
        if shows:
            show(name, found, None)


def over_links(hidden: int, rows: int, compiled: bool) -> None:
    """On each rank; the first tells."""
    import torch
    import torch.distributed as dist

    from commplan.runtime.kernels.peer_impls import Room
    from commplan.runtime.kernels.peer_kernels import PeerKernels
    from commplan.runtime.ranks.groups import Group

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.cuda.set_device(rank)
    device = torch.device("cuda", rank)
    dist.init_process_group("nccl", device_id=device)
    room = Room(rows=rows, pair_rows=rows, int8_rows=rows, int8_gather_rows=rows)
    peers = PeerKernels.make(Group("tp", dist.group.WORLD, world, rank), device, torch.bfloat16, hidden, room)
    run(peers, hidden, rows, compiled, True, rank == 0)
    torch.cuda.synchronize()
    peers.check()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=5120)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--compiled", action="store_true", help="time calls through torch.compile too")
    options = parser.parse_args()
    import torch

    several = torch.cuda.device_count() > 1
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, [{options.rows}, {options.hidden}], host us a call"
    )
    if several:
        from commplan.runtime.ranks.spawning import run_ranks

        run_ranks(over_links, torch.cuda.device_count(), options.hidden, options.rows, options.compiled, timeout_s=300)
        return
    from kernels_alone import Alone

    run(Alone(options.hidden, 4 * options.rows).peers, options.hidden, options.rows, options.compiled, False, True)


if __name__ == "__main__":
    main()
