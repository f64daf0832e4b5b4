"""How fast are the collectives of our own? Two GPUs, CUDA-graph replay, against NCCL in the same run.

    python benchmarks/runtime/collectives.py            # spawns two ranks
    python benchmarks/runtime/collectives.py --hidden 7168 --json out.json

Times are medians of replays, of the slower rank. A lone NCCL call is timed with a one-element kernel behind each, whose
time is taken off again: in a graph of nothing else NCCL's calls slow each other down. The floor of an op is its bytes
over the link at the rate of a copy between the GPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path

TOKENS = (1, 2, 8, 16, 32, 64, 256, 1024, 2048, 4096, 8192, 16384)
REPEATS, SAMPLES = 10, 15
LONE = ("NCCL", "torch one-shot", "torch two-shot")
# (case, op, baseline, {tokens: speed-up aimed at}, bytes per element over the link)
CASES = (
    ("all_reduce", "NCCL", {t: 1.8 for t in TOKENS if t <= 64}, 2),
    ("int8 gather", "NCCL", {1024: 2.2, 4096: 2.3, 16384: 2.3}, 1),
    ("int8 two_shot", "NCCL", {1024: 2.2, 4096: 2.3, 16384: 2.3}, 1),
    ("all_reduce + norm", "NCCL + norm", {t: 1.8 for t in TOKENS if t <= 64}, 2),
    ("int8 gather + norm", "NCCL + norm", {1024: 1.8, 4096: 2.2, 8192: 2.2, 16384: 2.2}, 1),
    ("int8 two_shot + norm", "NCCL + norm", {1024: 1.8, 4096: 2.2, 8192: 2.2, 16384: 2.2}, 1),
    ("scatter + norm + gather", "NCCL scatter + norm + gather", {t: 1.15 for t in TOKENS if t >= 4096}, 2),
)


def rank_main(hidden):
    """{name: {tokens: us}} on this rank, and the rate of the link."""
    import torch
    import torch.distributed as dist

    from commplan.runtime.kernels.peer_impls import Room
    from commplan.runtime.kernels.peer_kernels import PeerKernels
    from commplan.runtime.ranks.groups import Group

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.cuda.set_device(rank)
    device = torch.device("cuda", rank)
    dist.init_process_group("nccl", device_id=device)
    most = max(TOKENS)
    room = Room(rows=most, int8_rows=most, int8_gather_rows=most)
    peers = PeerKernels.make(Group("tp", dist.group.WORLD, world, rank), device, torch.bfloat16, hidden, room)
    bench = Bench(device)
    found = {}
    for tokens in TOKENS:
        for name, call in calls(peers, tokens, hidden, device).items():
            found.setdefault(name, {})[tokens] = bench.us(call, spaced=name in LONE)
    torch.cuda.synchronize()
    peers.check()
    machine = f"{world} x {torch.cuda.get_device_name()}, torch {torch.__version__}, NCCL {torch.cuda.nccl.version()}"
    return {"us": found, "link_gb_per_s": link_rate(bench, device, rank, world), "machine": machine}


def calls(peers, tokens, hidden, device):
    """Everything that is timed at a token count."""
    import torch
    import torch.distributed as dist
    import torch.distributed._symmetric_memory as symmetric_memory

    from commplan.runtime.kernels.add_rms_norm import add_rms_norm

    x, residual = (torch.randn(tokens, hidden, dtype=torch.bfloat16, device=device) for _ in range(2))
    weight = torch.ones(hidden, dtype=torch.bfloat16, device=device)
    work, shard_rows = x.clone(), -(-tokens // 2)
    shared = symmetric_memory.empty(tokens, hidden, dtype=torch.bfloat16, device=device)
    symmetric_memory.rendezvous(shared, dist.group.WORLD)
    group = dist.group.WORLD.group_name

    def nccl_norm():
        dist.all_reduce(work)
        return add_rms_norm(work, residual, weight, 1e-6)

    def ours_in_two():
        normed, _ = peers.reduce_scatter_norm(x, residual[:shard_rows], weight, 1e-6)
        return peers.all_gather(normed)

    found = {
        "NCCL": lambda: dist.all_reduce(work),
        "NCCL + norm": nccl_norm,
        "torch one-shot": lambda: torch.ops.symm_mem.one_shot_all_reduce(shared, "sum", group),
        "torch two-shot": lambda: torch.ops.symm_mem.two_shot_all_reduce_(shared, "sum", group),
        "all_reduce": lambda: peers.all_reduce(x),
        "all_reduce + norm": lambda: peers.all_reduce_norm(x, residual, weight, 1e-6),
        "scatter + norm + gather": ours_in_two,
        "reduce_scatter": lambda: peers.reduce_scatter(x),
        "all_gather": lambda: peers.all_gather(x[:shard_rows]),
    }
    for algorithm in ("gather", "two_shot"):
        found[f"int8 {algorithm}"] = lambda a=algorithm: peers.int8_all_reduce(x, a)
        found[f"int8 {algorithm} + norm"] = lambda a=algorithm: peers.int8_all_reduce_norm(x, a, residual, weight, 1e-6)
    if tokens % 2 == 0:
        shard = x.new_empty(shard_rows, hidden)

        def nccl_in_two():
            dist.reduce_scatter_tensor(shard, x)
            normed, _ = add_rms_norm(shard, residual[:shard_rows], weight, 1e-6)
            dist.all_gather_into_tensor(work, normed)

        found["NCCL scatter + norm + gather"] = nccl_in_two
        found["NCCL reduce_scatter"] = lambda: dist.reduce_scatter_tensor(shard, x)
        found["NCCL all_gather"] = lambda: dist.all_gather_into_tensor(work, shard)
    return found


class Bench:
    """Graph replays, in us per call, of the slower rank."""

    def __init__(self, device):
        import torch

        self._device, self._spacer = device, torch.zeros(1, device=device)
        self._spacer_us = self.us(self._space)

    def _space(self):
        self._spacer.add_(1.0)

    def us(self, call, spaced=False):
        import torch
        import torch.distributed as dist

        for _ in range(3):
            call()
        torch.cuda.synchronize()
        dist.barrier()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(REPEATS):
                call()
                if spaced:
                    self._space()
        samples = []
        for _ in range(SAMPLES):
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            graph.replay()  # brings the ranks in step
            start.record()
            graph.replay()
            end.record()
            torch.cuda.synchronize()
            samples.append(start.elapsed_time(end) * 1e3 / REPEATS - (self._spacer_us if spaced else 0.0))
        slower = torch.tensor(statistics.median(samples), device=self._device)
        dist.all_reduce(slower, op=dist.ReduceOp.MAX)
        return slower.item()


def link_rate(bench, device, rank, world):
    """GB/s of a copy to the next GPU while all copy."""
    import torch
    import torch.distributed as dist
    import torch.distributed._symmetric_memory as symmetric_memory

    size = 1 << 28
    buffer = symmetric_memory.empty(size, dtype=torch.uint8, device=device)
    handle = symmetric_memory.rendezvous(buffer, dist.group.WORLD)
    there = handle.get_buffer((rank + 1) % world, (size,), torch.uint8)
    mine = torch.empty(size, dtype=torch.uint8, device=device)
    return size / bench.us(lambda: there.copy_(mine)) / 1e3


def print_tables(result, hidden):
    us, link = result["us"], result["link_gb_per_s"]
    print(f"{result['machine']}; hidden {hidden}, bf16; link {link:.0f} GB/s; us")
    print("\n| tokens | " + " | ".join(us) + " |\n|---:|" + "---:|" * len(us))
    for tokens in TOKENS:
        print(f"| {tokens} | " + " | ".join(f"{us[n][tokens]:.1f}" if tokens in us[n] else "" for n in us) + " |")
    print(
        "\n| case | baseline | tokens | us | speed-up | aim | of the link's floor |\n|---|---|---:|---:|---:|---:|---:|"
    )
    for case, baseline, aims, width in CASES:
        for tokens in sorted({*aims, 1024, 4096, 16384}):
            time, aim = us[case][tokens], aims.get(tokens)
            ratio, floor = us[baseline][tokens] / time, tokens * hidden * width / link / 1e3
            verdict = "" if aim is None else f"{aim:.2f} " + ("met" if ratio >= aim else "**missed**")
            print(f"| {case} | {baseline} | {tokens} | {time:.1f} | {ratio:.2f} | {verdict} | {floor / time:.0%} |")


def main():
    from commplan.runtime.ranks.spawning import run_ranks

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=5120)
    parser.add_argument("--json", help="also write all figures here")
    options = parser.parse_args()
    result = run_ranks(rank_main, 2, options.hidden, timeout_s=400)[0]
    print_tables(result, options.hidden)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
