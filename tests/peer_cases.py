"""Inputs for our collectives that every rank can make for all ranks, and the float64 results; on GPUs and emulated."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from commplan.runtime.kernels.peer_kernels import PeerKernels

EPS = 1e-6


def rows_of(seed: int, rows: int, width: int, dtype: torch.dtype, kind: str = "normal", device: str = "cuda") -> Tensor:
    """The same rows on whatever rank asks. `outliers`: a few channels are a hundred times larger, as in real models."""
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.randn(rows, width, generator=generator, device=device)
    if kind == "outliers":
        x[:, torch.randperm(width, generator=generator, device=device)[: max(1, width // 500)]] *= 100.0
    return x.to(dtype)


def poison(numel: int, dtype: torch.dtype) -> None:
    """Leave NaN in the GPU memory that the next `empty` gets."""
    if not torch.cuda.is_available():
        return
    blocks = [torch.full((numel,), float("nan"), dtype=dtype, device="cuda") for _ in range(4)]
    torch.cuda.synchronize()
    del blocks


def normed(total: Tensor, weight: Tensor) -> Tensor:
    return total * torch.rsqrt(total.square().mean(-1, keepdim=True) + EPS) * weight.double()


def error(found: Tensor, wanted: Tensor) -> float:
    """Relative RMS; infinite where anything is not a number."""
    if not bool(torch.isfinite(found).all()):
        return float("inf")
    return float((found.double() - wanted).norm() / wanted.norm().clamp_min(1e-300))


def shard_of(x: Tensor, rank: int, world: int) -> Tensor:
    """Rows of a rank's shard, zero-padded."""
    rows = -(-x.shape[0] // world)
    padded = x.new_zeros(rows * world, x.shape[1])
    padded[: x.shape[0]] = x
    return padded[rank * rows : (rank + 1) * rows].contiguous()


class Case:
    """Inputs of one size, and the float64 sums."""

    def __init__(
        self,
        ranks: tuple[int, int],
        rows: int,
        width: int,
        dtype: torch.dtype,
        kind: str,
        seed: int,
        device: str = "cuda",
    ) -> None:
        self.rank, self.world = ranks
        self.parts = [rows_of(seed + r, rows, width, dtype, kind, device) for r in range(self.world)]
        self.mine = self.parts[self.rank]
        self.residual = rows_of(seed + 90, rows, width, dtype, device=device)
        self.weight = rows_of(seed + 91, 1, width, dtype, device=device)[0]
        self.sum = torch.stack([part.double() for part in self.parts]).sum(0)
        self.total = self.sum + self.residual.double()

    def errors(self, peers: PeerKernels) -> dict[str, float]:
        """Of every op."""
        x, residual, weight = self.mine, self.residual, self.weight
        shard = shard_of(residual, self.rank, self.world)
        mine = (self.rank, self.world)
        found: dict[str, float] = {}

        def plain(name: str, run: Callable[[], Tensor], wanted: Tensor) -> None:
            poison(x.numel() * self.world, x.dtype)
            found[name] = error(run(), wanted)

        def with_norm(name: str, run: Callable[[], tuple[Tensor, Tensor]], total: Tensor) -> None:
            poison(x.numel() * self.world, x.dtype)
            out, new_residual = run()
            found[name] = max(error(out, normed(total, weight)), error(new_residual, total))

        plain("all_reduce", lambda: peers.all_reduce(x), self.sum)
        with_norm("all_reduce_norm", lambda: peers.all_reduce_norm(x, residual, weight, EPS), self.total)
        with_norm("all_reduce_norm, folded", lambda: peers.all_reduce_norm(x, None, weight, EPS), self.sum)
        for algorithm in ("gather", "two_shot"):
            name = f"int8 {algorithm}"
            plain(name, lambda a=algorithm: peers.int8_all_reduce(x, a), self.sum)  # type: ignore[misc]
            with_norm(
                f"{name} norm",
                lambda a=algorithm: peers.int8_all_reduce_norm(x, a, residual, weight, EPS),  # type: ignore[misc]
                self.total,
            )
        plain("reduce_scatter", lambda: peers.reduce_scatter(x), shard_of(self.sum, *mine))
        with_norm(
            "reduce_scatter_norm",
            lambda: peers.reduce_scatter_norm(x, shard, weight, EPS),
            shard_of(self.total, *mine),
        )
        plain("all_gather", lambda: peers.all_gather(x), torch.cat([part.double() for part in self.parts]))
        for attn_tp in (a for a in range(1, self.world + 1) if self.world % a == 0):
            attn_dp, group = self.world // attn_tp, self.rank // attn_tp
            dp_groups = torch.stack([part.double() for part in self.parts]).view(attn_dp, attn_tp, *x.shape).sum(1)
            found |= _bits_of_pairs(peers, x, attn_tp, attn_dp)
            for how in ("one_shot", "two_shot"):
                plain(
                    f"gather_sum {attn_tp} {how}",
                    lambda a=attn_tp, how=how: peers.gather_sum(x, a, how),
                    dp_groups.flatten(0, 1),
                )  # type: ignore[misc]
            # Partial rows of every DP group, each its own: this rank's, then the same on all ranks, turned.
            turned = [residual.roll(n, 1) for n in range(1, attn_dp)]
            wanted = self.sum if group == 0 else self.world * turned[group - 1].double()
            for how in ("one_shot", "two_shot"):
                plain(
                    f"scatter_sum {attn_tp} {how}",
                    lambda a=attn_tp, t=turned, how=how: peers.scatter_sum(torch.cat([x, *t]), a, how),
                    wanted,
                )  # type: ignore[misc]
        return found


def _bits_of_pairs(peers: PeerKernels, x: Tensor, attn_tp: int, attn_dp: int) -> dict[str, float]:
    """Nothing where both algorithms of a pair give the same bits, infinite where they do not."""
    every = torch.cat([x] * attn_dp)
    found = {}
    for name, call, rows in (("gather_sum", peers.gather_sum, x), ("scatter_sum", peers.scatter_sum, every)):
        one, two = (call(rows, attn_tp, how) for how in ("one_shot", "two_shot"))
        found[f"{name} {attn_tp}, bits"] = 0.0 if torch.equal(one, two) else float("inf")
    return found
