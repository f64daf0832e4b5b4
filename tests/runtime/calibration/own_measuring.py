"""Runs on a rank: collectives of our own, measured as points and as boundaries, and the contract of their reference."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from commplan.planner.strategy.file import Parallelism, StrategyFile
from commplan.runtime.calibration.boundaries import Case, measure_plans
from commplan.runtime.calibration.measure import measure_rank
from commplan.runtime.kernels.peer_impls import Room
from commplan.runtime.ranks.groups import Groups, make_groups

from ..bound.own_collectives import METHODS as CALLS
from ..bound.own_collectives import PeersOverGloo, own_collectives
from ..reference_peers import ReferencePeers

METHODS = (*CALLS, "push")


class Measured(NamedTuple):
    """Samples by point, what was said on standard error, and the Peers' methods that ran."""

    samples: dict[Any, list[float]]
    said: str
    methods: set[str]


@contextmanager
def noted_methods() -> Iterator[set[str]]:
    """Names of the Peers' methods that run inside, inner ones too."""
    seen: set[str] = set()
    methods = {name: getattr(ReferencePeers, name) for name in METHODS}

    def noting(name: str) -> Any:
        def call(self: ReferencePeers, *args: Any, **named: Any) -> Any:
            seen.add(name)
            return methods[name](self, *args, **named)

        return call

    for name in METHODS:
        setattr(ReferencePeers, name, noting(name))
    try:
        yield seen
    finally:
        for name, method in methods.items():
            setattr(ReferencePeers, name, method)


def measured_points(points: list[list[Any]], with_peers: bool) -> Measured:
    said = io.StringIO()
    with contextlib.ExitStack() as stack:
        if with_peers:
            stack.enter_context(own_collectives())
        seen = stack.enter_context(noted_methods())
        stack.enter_context(contextlib.redirect_stderr(said))
        found = measure_rank(points, "gloo", 0.5, {}, None, None)
    return Measured(found["samples"], said.getvalue(), seen)


def measured_boundaries(plans: dict[str, StrategyFile], tokens: int) -> list[Measured]:
    """Of each plan alone, and of all together."""
    found = []
    with own_collectives():
        for some in (*({name: plan} for name, plan in plans.items()), plans):
            with noted_methods() as seen:
                by_plan = measure_plans([Case("prefill", tokens, some, ())], 1, 1, [], True)["cases"][0]
            samples = {key: times for keys in by_plan.values() for key, times in keys.items()}
            found.append(Measured(samples, "", seen))
    return found


# ---- the reference -----------------------------------------------------------------------------------------------

_groups: dict[int, Groups] = {}


class Results(NamedTuple):
    """What a rank put in and got out, of every method, for one number of rows."""

    x: torch.Tensor
    residual: torch.Tensor
    weight: torch.Tensor
    got: dict[str, Any]
    kept: bool
    collectives: int


def results(ranks: int, rows: list[int], dtype: torch.dtype) -> list[Results]:
    if ranks not in _groups:
        _groups[ranks] = make_groups(Parallelism(ranks), 60.0)
    group = _groups[ranks].tp
    found = []
    for count in rows:
        backend = _Counting()
        peers = ReferencePeers(backend, group, 24, Room(*[-(-count // ranks) * ranks] * 4))
        generator = torch.Generator().manual_seed(100 * count + group.rank)
        x = torch.randn(count, 24, generator=generator).to(dtype)
        same = torch.Generator().manual_seed(count)
        residual, weight = (torch.randn(n, 24, generator=same).to(dtype) for n in (count, 1))
        own = residual[group.rank * -(-count // ranks) :][: -(-count // ranks)]
        shard = torch.cat([own, own.new_zeros(-(-count // ranks) - len(own), 24)])
        before = x.clone()
        got = _every_call(peers, x, residual, shard, weight[0], ranks // 2 or 1)
        found.append(Results(before, residual, weight[0], got, torch.equal(x, before), backend.collectives))
    return found


def _every_call(
    peers: ReferencePeers,
    x: torch.Tensor,
    residual: torch.Tensor,
    shard: torch.Tensor,
    weight: torch.Tensor,
    attn_tp: int,
) -> dict[str, Any]:
    got: dict[str, Any] = {
        "all_reduce": peers.all_reduce(x),
        "all_reduce_norm": peers.all_reduce_norm(x, residual, weight, 1e-6),
        "all_reduce_norm, folded": peers.all_reduce_norm(x, None, weight, 1e-6),
        "reduce_scatter": peers.reduce_scatter(x),
        "reduce_scatter_norm": peers.reduce_scatter_norm(x, shard, weight, 1e-6),
        "all_gather": peers.all_gather(shard),
        "gather_sum": peers.gather_sum(x, attn_tp),
        "scatter_sum": peers.scatter_sum(x, attn_tp) if len(x) % (peers.group.size // attn_tp) == 0 else None,
    }
    for algorithm in ("gather", "two_shot"):
        got[f"int8 {algorithm}"] = peers.int8_all_reduce(x, algorithm)
        got[f"int8 {algorithm} norm"] = peers.int8_all_reduce_norm(x, algorithm, residual, weight, 1e-6)
    return got


class _Counting(PeersOverGloo):
    """Counts the messages that go out."""

    collectives = 0

    def all_reduce(self, x: torch.Tensor, group: Any) -> torch.Tensor:
        self.collectives += 1
        return super().all_reduce(x, group)

    def reduce_scatter(self, x: torch.Tensor, group: Any) -> torch.Tensor:
        self.collectives += 1
        return super().reduce_scatter(x, group)

    def all_gather(self, x: torch.Tensor, group: Any) -> torch.Tensor:
        self.collectives += 1
        return super().all_gather(x, group)

    def all_to_all(self, x: torch.Tensor, group: Any) -> torch.Tensor:
        self.collectives += 1
        return super().all_to_all(x, group)
