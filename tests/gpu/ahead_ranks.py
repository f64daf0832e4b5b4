"""What runs on each rank: sums that ask for the next weights, against those that do not."""

from __future__ import annotations

import torch

from ..peer_cases import EPS, rows_of
from .ranks import peers_of, start

WIDTH, SIZES = 5120, (1, 3, 16, 64)


def reading_ahead(replays: int) -> int:
    """Wrong results of sums, eager and replayed with new rows, beside which weights are asked for."""
    rank, _, _ = start()
    peers, wrong = peers_of(torch.bfloat16, WIDTH, max(SIZES)), torch.zeros(1, dtype=torch.int64, device="cuda")
    gain, next_weights = rows_of(51, 1, WIDTH, torch.bfloat16)[0], rows_of(52, 1031, WIDTH, torch.bfloat16)
    given = {rows: rows_of(rank, rows, WIDTH, torch.bfloat16) for rows in SIZES}

    def judge() -> None:
        for x in given.values():
            wanted = peers.all_reduce_norm(x, x, gain, EPS, "one_shot")
            peers._bytes_ahead = 8 << 20
            peers.read_ahead(next_weights)
            found = peers.all_reduce_norm(x, x, gain, EPS, "one_shot")
            peers._bytes_ahead = 0
            for one, other in zip(found, wanted, strict=True):
                wrong.add_((one != other).any())  # NaN is never the same

    judge()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        judge()
    for replay in range(replays):
        for rows, x in given.items():
            x.copy_(rows_of(100 * replay + rank, rows, WIDTH, torch.bfloat16))
        graph.replay()
    torch.cuda.synchronize()
    peers.check()
    return int(wrong.item())
