"""What do sums save that ask for the next weights? Layers of a decode in CUDA graphs, on two GPUs and more.

    python benchmarks/runtime/read_ahead.py --tokens 1,16,64 --megabytes 1,2,4,8,16,32

The four GEMMs of a dense layer as one of the ranks has them, one behind the other, with a sum, an add and a norm behind
the second and the fourth: by NCCL and a norm, by one kernel of commplan's, by the same asking the L2 cache for so many
megabytes of the weights that are read next, and none at all. Every layer has weights of its own, so that none are in
the cache from the last replay. Graphs are replayed in turn; medians over rounds of the slower rank, us a layer, and in
brackets what is saved of what the sums cost with NCCL. All ways must leave the same rows, but the one without sums.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from ways import EPS, LIBRARY, NOTHING, begin, in_turn, told

REPLAYS = 5


class Layers:
    """The weights of some layers on one rank, and rows that go through them."""

    def __init__(self, options: argparse.Namespace, ranks: int, rank: int) -> None:
        import torch

        def weight(rows: int, columns: int) -> Any:
            made = torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16, generator=generator)
            return made.div_(columns**0.5)

        generator = torch.Generator("cuda").manual_seed(rank)
        hidden, inner, heads = options.hidden, options.inner // ranks, options.heads // ranks
        qkv = heads + options.kv // ranks
        self.layers = [
            tuple(weight(*shape) for shape in ((qkv, hidden), (hidden, heads), (2 * inner, hidden), (hidden, inner)))
            for _ in range(options.layers)
        ]
        self.gain = torch.ones(hidden, device="cuda", dtype=torch.bfloat16)
        self._heads, self._inner = heads, inner

    def run(self, rows: Any, total: Any, summed: Callable[[Any, Any, Any], Any]) -> Any:
        """(normed, total) behind all layers; `summed`: (partial, total, the weights read next) to the same."""
        for number, (qkv, out, up, down) in enumerate(self.layers):
            attended = (rows @ qkv.t())[:, : self._heads].contiguous()
            rows, total = summed(attended @ out.t(), total, up)
            gated = (rows @ up.t())[:, : self._inner].contiguous()
            behind = self.layers[number + 1][0] if number + 1 < len(self.layers) else None
            rows, total = summed(gated @ down.t(), total, behind)
        return rows, total


def rank_main(options: argparse.Namespace) -> None:
    """Measures and, on rank 0, prints."""
    here = begin()
    import torch
    import torch.distributed as dist

    from commplan.runtime.kernels.peer_impls import Room
    from commplan.runtime.kernels.peer_kernels import PeerKernels

    room = Room(rows=max(options.tokens))
    peers = PeerKernels.make(here.group, here.device, torch.bfloat16, options.hidden, room)
    layers = Layers(options, here.world, here.rank)
    if here.rank == 0:
        print(f"{here.world} x {torch.cuda.get_device_name()}, torch {torch.__version__}; us a layer", flush=True)
    for count in options.tokens:
        same = torch.Generator("cuda").manual_seed(count)
        rows = torch.randn(count, options.hidden, device=here.device, generator=same).to(torch.bfloat16)
        ways = ways_of(layers, peers, rows, options.megabytes)
        times, wrong = measured(ways, count, options.rounds, len(layers.layers))
        peers.check()
        if here.rank == 0:
            print(f"{count} tokens: {told(times)}", *wrong, sep="\n    ", flush=True)
    torch.cuda.synchronize()
    dist.barrier()


def ways_of(layers: Layers, peers: Any, rows: Any, megabytes: list[float]) -> dict[str, Callable[[], Any]]:
    """Name to what runs all layers."""
    import torch.distributed as dist

    from commplan.runtime.kernels.add_rms_norm import add_rms_norm

    def library(partial: Any, total: Any, _: Any) -> Any:
        dist.all_reduce(partial)
        return add_rms_norm(partial, total, layers.gain, EPS)

    def nothing(partial: Any, total: Any, _: Any) -> Any:
        return add_rms_norm(partial, total, layers.gain, EPS)

    def own(partial: Any, total: Any, following: Any) -> Any:
        if following is not None:
            peers.read_ahead(following)
        return peers.all_reduce_norm(partial, total, layers.gain, EPS, "one_shot")

    def asking(size: float) -> Callable[[], Any]:
        def run() -> Any:
            peers._bytes_ahead = int(size * (1 << 20))
            return layers.run(rows, rows, own)

        return run

    found = {LIBRARY: lambda: layers.run(rows, rows, library), "own": asking(0)}
    found |= {f"own, {size:g} MiB ahead": asking(size) for size in megabytes}
    return {**found, NOTHING: lambda: layers.run(rows, rows, nothing)}


def measured(
    ways: dict[str, Callable[[], Any]], seed: int, rounds: int, layers: int
) -> tuple[dict[str, float], list[str]]:
    """(us a layer by way, which ways leave other rows than the library)."""
    import torch
    from graph_times import Timer, error_of, replayed_us

    timer, graphs, left = Timer(torch.device("cuda", torch.cuda.current_device())), {}, {}
    for name, way in ways.items():
        for _ in range(2):
            way()
        torch.cuda.synchronize()
        graphs[name] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graphs[name]):
            left[name] = way()
    times = in_turn({name: partial(replayed_us, graph, REPLAYS) for name, graph in graphs.items()}, rounds, seed)
    # Each layer's norm rounds otherwise than the library's.
    wrong = [
        f"{name}: other rows than those of {LIBRARY}"
        for name, found in left.items()
        if name != NOTHING and error_of(found, [one.float() for one in left[LIBRARY]]) > 0.02
    ]
    return {name: timer.slower(us / layers) for name, us in times.items()}, wrong


def main() -> None:
    from commplan.runtime.ranks.spawning import run_ranks

    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--ranks", type=int, default=2)
    add("--layers", type=int, default=8)
    add("--hidden", type=int, default=5120, help="of Qwen3-32B, as are the next three")
    add("--heads", type=int, default=8192, help="columns of all query heads")
    add("--kv", type=int, default=2048, help="columns of all keys and values")
    add("--inner", type=int, default=25600)
    add("--tokens", type=numbers, default=[1, 16, 64])
    add("--megabytes", type=lambda text: [float(word) for word in text.split(",")], default=[1, 2, 4, 8, 16, 32])
    add("--rounds", type=int, default=15)
    options = parser.parse_args()
    run_ranks(rank_main, options.ranks, options, timeout_s=540)


if __name__ == "__main__":
    main()
