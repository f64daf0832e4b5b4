"""What runs on each rank: rows that are pushed while a GEMM makes them, against a kernel that sends them itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..peer_cases import EPS, rows_of
from .ranks import peers_of, start

WIDTH, NARROW, INNER, MOST = 5120, 512, 512, 4096
SIZES = (4096, 1100, 2048, 257, 3001)


class Layer:
    """GEMM, sum, add and norm of some rows, pushed and not, and how often the results were not the same bits."""

    def __init__(self, peers: Any, rank: int, width: int = WIDTH) -> None:
        self.peers, self.wrong = peers, torch.zeros(1, dtype=torch.int64, device="cuda")
        self.right = rows_of(99, INNER, width, torch.bfloat16) / INNER**0.5
        self.left = rows_of(1 + rank, MOST, INNER, torch.bfloat16)
        self.residual, self.weight = rows_of(50, MOST, width, torch.bfloat16), rows_of(51, 1, width, torch.bfloat16)[0]

    def __call__(self, rows: int, half: int | None) -> None:
        x = torch.full((rows, self.right.shape[1]), float("nan"), dtype=torch.bfloat16, device="cuda")
        self.peers.push(x, half, lambda a, b: torch.mm(self.left[a:b], self.right, out=x[a:b]))
        found = self.peers.all_reduce_norm(x, self.residual[:rows], self.weight, EPS, "pushed")
        self._judge(found, self.peers.all_reduce_norm(x, self.residual[:rows], self.weight, EPS, "one_shot"))

    def _judge(self, found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> None:
        for one, other in zip(found, wanted, strict=True):
            self.wrong += (one != other).any()  # NaN is never the same


def pushed(calls: int) -> int:
    """Wrong results of calls by ranks that are late by random times, of sizes in turn, in halves by turns and named."""
    rank, world, _ = start()
    if world != 2:
        return 0
    layer, late = Layer(peers_of(torch.bfloat16, WIDTH, MOST), rank), torch.Generator().manual_seed(rank)
    for call in range(calls):
        if int(torch.randint(0, 3, (1,), generator=late)) == 0:
            torch.cuda._sleep(int(torch.randint(0, 400_000, (1,), generator=late)))
        layer(SIZES[call % len(SIZES)], None if call % 2 else call // 2 % 2)
    torch.cuda.synchronize()
    layer.peers.check()
    return int(layer.wrong.item())


def narrow(calls: int) -> int:
    """Wrong results of narrow rows, as many as fill the multiprocessors while their copies are small."""
    rank, world, _ = start()
    if world != 2:
        return 0
    layer = Layer(peers_of(torch.bfloat16, NARROW, MOST), rank, NARROW)
    for call in range(calls):
        layer((1024, 960, 1280, 700)[call % 4], None)
    torch.cuda.synchronize()
    layer.peers.check()
    return int(layer.wrong.item())


def pushed_in_graphs(replays: int) -> int:
    """Wrong results of graphs, captured one by one and replayed with new rows: of two sizes, with three uses of a half
    in one and one in the other, so that uses of either are odd."""
    rank, world, _ = start()
    if world != 2:
        return 0
    layer = Layer(peers_of(torch.bfloat16, WIDTH, MOST), rank)
    runs = [[(4096, 0), (4096, 1), (4096, 0), (4096, 0)], [(1100, 1)]]
    for run in runs:
        for each in run:
            layer(*each)
    torch.cuda.synchronize()
    graphs = []
    for run in runs:
        graphs.append(torch.cuda.CUDAGraph())
        with torch.cuda.graph(graphs[-1]):
            for each in run:
                layer(*each)
    for replay in range(replays):
        layer.left.copy_(rows_of(1000 + 2 * replay + rank, MOST, INNER, torch.bfloat16))
        for graph in graphs if replay % 3 else graphs[:1]:
            graph.replay()
    torch.cuda.synchronize()
    layer.peers.check()
    return int(layer.wrong.item())
