"""A stack of layers that sums, norms and hands on as SGLang's boundaries do, on real ranks: no server, no model.

Attention and MLP are a nonlinear map with weights of their own on each rank, so that a row out of place, a residual
added twice or a sum left out changes the result. Every rank can compute what it should be, for it can make the weights
of all. Shapes: T tokens, H width, W latents.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from commplan.planner.strategy.file import HardwareStamp, ModelStamp, Parallelism, RangePlan, StrategyFile
from commplan.runtime.bound.counts import expected_calls
from commplan.runtime.servers.forward import Forwards
from commplan.runtime.servers.sglang.binding import TORCH_DTYPES, Binding
from commplan.runtime.servers.sglang.fused_reads import FinalNorm, FusedSum, LateLatents, PlannedRead
from commplan.runtime.servers.sglang.stages import Deferral

from .fakes import strategy
from .plans import EVERYWHERE_PLAIN, late_latents, mixed_layouts, own_scattered, scattered, tokens

LAYERS, EPS = 4, 1e-6
MOST = 1024


def stack_plans(backend: str, activations: str, width: int, latents: int, tp: int) -> dict[str, StrategyFile]:
    """A plan for each kind of forward, for every number of tokens."""

    def file(plan: RangePlan) -> StrategyFile:
        found = strategy(modes={"prefill": (plan,), "decode": (plan,)})
        return replace(
            found,
            model=ModelStamp("tiny", "target", "DeepseekV3ForCausalLM", LAYERS, width, latents, frozenset(), "0" * 16),
            hardware=HardwareStamp("ranks", backend, "0" * 16),
            parallelism=Parallelism(tp),
            deployment=replace(found.deployment, activations=activations),
        )

    return {
        "plain": file(tokens(1, MOST, EVERYWHERE_PLAIN)),
        "scattered": file(scattered(1, MOST)),
        "mixed": file(mixed_layouts(1, MOST)),
        "own": file(own_scattered(1, MOST)),
        "late": file(late_latents(1, MOST)),
        "own late": file(late_latents(1, MOST, own_kernels=True)),
    }


@dataclass
class ServerGroup:
    """SGLang's GroupCoordinator, as far as binding and hooks look at it."""

    rank_in_group: int
    world_size: int
    device_group: Any
    cpu_group: Any
    ca_comm: Any = None


class Norm(nn.Module):
    """RMSNorm as SGLang calls it; with a residual it works in place."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(weight, requires_grad=False), EPS

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Any:
        total = x if residual is None else residual.add_(x)
        wide = total.float()
        normed = (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + EPS) * self.weight.float()).to(x.dtype)
        return normed if residual is None else (normed, total)


class Weights:
    """Of one rank: the same on every rank that asks."""

    def __init__(self, rank: int, width: int, latents: int, dtype: torch.dtype, device: torch.device) -> None:
        def made(seed: int, *shape: int) -> Tensor:
            generator = torch.Generator().manual_seed(seed)
            return (torch.randn(*shape, generator=generator) / shape[0] ** 0.5).to(device, dtype)

        self.embedding = made(10 * rank, MOST, width)
        self.down = [made(1000 + layer, width, latents) for layer in range(LAYERS)]  # alike on all ranks
        self.up = [made(2000 + 10 * layer + rank, latents, width) for layer in range(LAYERS)]
        self.first = [made(3000 + 10 * layer + rank, width, latents) for layer in range(LAYERS)]
        self.second = [made(4000 + 10 * layer + rank, latents, width) for layer in range(LAYERS)]
        self.norms = [Norm(made(5000 + n, width, 1).flatten().abs() + 0.5) for n in range(2 * LAYERS + 1)]


def wanted(everyone: list[Weights], tokens: int) -> Tensor:
    """[T, H]: what comes out, in fp32 on one rank."""

    def normed(x: Tensor, norm: Norm) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * norm.weight.float()

    one = everyone[0]
    residual = sum(w.embedding[:tokens].float() for w in everyone)
    assert isinstance(residual, Tensor)
    for layer in range(LAYERS):
        latents = torch.tanh(normed(residual, one.norms[2 * layer]) @ one.down[layer].float())
        residual = residual + sum(latents @ w.up[layer].float() for w in everyone)
        rows = normed(residual, one.norms[2 * layer + 1])
        residual = residual + sum(torch.tanh(rows @ w.first[layer].float()) @ w.second[layer].float() for w in everyone)
    return normed(residual, one.norms[-1])


class Inputs:
    """SGLang's AttentionInputs."""

    qkv_latent_: Tensor | None = None

    def __init__(self, rows: Tensor, down: Tensor) -> None:
        self.rows, self.down = rows, down

    def fetch(self) -> Tensor:
        if self.qkv_latent_ is None:
            self.qkv_latent_ = self.rows @ self.down
        return self.qkv_latent_


class FirstRead:
    """SGLang's read of the first attention."""

    def read(self, rows: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
        return norm(rows), rows


def ran(forwards: Forwards, group: ServerGroup, mine: Weights, tokens: int) -> Tensor:
    """[T, H]: what comes out of the stack under a plan."""
    with forwards.embedding():
        rows = forwards.all_reduce(_unplanned, group, mine.embedding[:tokens].clone())
    latents = LateLatents(forwards)
    rows, residual = PlannedRead(FirstRead(), first=forwards.entered_first).read(rows, mine.norms[0])
    for layer in range(LAYERS):
        if layer:
            rows, residual = _read(forwards, layer - 1, "mlp_out", rows, residual, mine.norms[2 * layer])
        found = latents.around_fetch(Inputs.fetch, Inputs(rows, mine.down[layer]))
        partial = torch.tanh(found) @ mine.up[layer]
        rows, residual = _read(forwards, layer, "attn_out", partial, residual, mine.norms[2 * layer + 1])
        rows = torch.tanh(rows @ mine.first[layer]) @ mine.second[layer]
    rows = forwards.sum(LAYERS - 1, "mlp_out", rows)
    now = forwards.current
    owed = now is not None and now.owed
    last = FinalNorm(forwards, LAYERS - 1, mine.norms[-1]) if owed else mine.norms[-1]
    out: Tensor = last(rows, residual)[0]
    return out


def _read(
    forwards: Forwards, layer: int, boundary: str, partial: Tensor, residual: Tensor, norm: Norm
) -> tuple[Tensor, Tensor]:
    """As a stage reads: the planned kernel is asked first; an FFN completes its own sum where it may not leave it."""
    if boundary == "attn_out" or Deferral(forwards, layer)(None):
        found = FusedSum(forwards, layer, boundary)(partial, residual, None, norm)
        if found is not None:
            rows, residual = found
            return rows, residual
    rows, residual = norm(forwards.sum(layer, boundary, partial), residual)
    return rows, residual


def _unplanned(group: object, x: Tensor) -> Tensor:
    raise AssertionError("the embedding's sum is the plan's")


def stack_error(
    file: StrategyFile, group: ServerGroup, device: torch.device, counts: list[int]
) -> dict[int, tuple[float, bool]]:
    """Tokens to (relative RMS error of what comes out, whether exactly the planned ops ran), on this rank."""
    dtype = TORCH_DTYPES[file.deployment.activations]
    width, latents = file.model.hidden_size, file.model.latent_width
    everyone = [Weights(rank, width, latents, dtype, device) for rank in range(group.world_size)]
    binding = Binding(file, group, group, device)
    found = {}
    for count in counts:
        forwards = Forwards(file, binding.programs)
        with forwards.serving(), forwards.forward("prefill", count):
            out = ran(forwards, group, everyone[group.rank_in_group], count)
        exact = wanted(everyone, count)
        error = float((out.float() - exact).norm() / exact.norm())
        found[count] = error, forwards.counters.calls() == expected_calls(file, [("prefill", count)])
    binding.peers.check()
    binding.peers.close()
    return found


def replayed_error(file: StrategyFile, group: ServerGroup, device: torch.device, count: int) -> tuple[float, bool]:
    """(relative RMS error of what a CUDA graph of the stack gives, replayed twice, whether its ops were counted)."""
    dtype = TORCH_DTYPES[file.deployment.activations]
    width, latents = file.model.hidden_size, file.model.latent_width
    everyone = [Weights(rank, width, latents, dtype, device) for rank in range(group.world_size)]
    binding = Binding(file, group, group, device)
    forwards = Forwards(file, binding.programs)
    mine = everyone[group.rank_in_group]
    with forwards.forward("decode", count):
        ran(forwards, group, mine, count)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), forwards.forward("decode", count):
        out = ran(forwards, group, mine, count)
    for _ in range(2):
        out.zero_()
        graph.replay()
        with forwards.serving():
            forwards.replayed("decode", count)
    torch.cuda.synchronize()
    exact = wanted(everyone, count)
    counted = forwards.counters.calls() == expected_calls(file, [("decode", count)] * 2)
    binding.peers.check()
    error = float((out.float() - exact).norm() / exact.norm())
    del graph
    binding.peers.close()
    return error, counted


__all__ = ["ServerGroup", "replayed_error", "stack_error", "stack_plans"]
