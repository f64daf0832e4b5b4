"""Timing planned boundaries: the runtime's own bound ops on random rows, without a model.

A boundary is what the runtime does between two blocks: at an `_out` boundary the sum, the other stream, and the add and
norm that follow; at an `_in` boundary the gather, and with MLA the latent projections before or behind it. The latents'
own norms are left out: no choice changes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from commplan.planner.strategy.file import DP_LOCAL, Rows, State, StrategyFile

from ..backends import Backend, load_backend
from ..bound.bound_ops import BoundIn, BoundOut
from ..bound.peer_pool import PeerPool
from ..bound.program import Program, build_programs
from ..bound.sizes import sizes_of
from ..errors import RefusedError
from ..kernels.peer_impls import check_peer_limits
from ..ranks.agreement import together
from ..ranks.groups import Groups, make_groups, temporary_groups
from ..ranks.rendezvous import meet
from ..transformers.executor import Executor
from ..transformers.layer import add_and_norm, cross_in, cross_out
from ..transformers.stream import Stream
from .made_rows import MadeRows
from .measure import differences, machine
from .point_calls import DTYPES, PlainNorm
from .timing import Timer, no_gradients

Key = tuple[str, str, str, str]


class Case(NamedTuple):
    """Plans to measure against each other at one token count. Every plan's file has one range, which holds it."""

    mode: str
    tokens: int
    plans: dict[str, StrategyFile]
    latent_widths: tuple[int, ...]  # columns of the projections that make the latents


@temporary_groups()
def measure_plans(
    cases: list[Case], rounds: int, samples: int, fingerprints: list[dict[str, str]], force: bool
) -> dict[str, Any]:
    """For each case, plan and distinct boundary: samples in us on this rank, round by round, plans interleaved.

    Refuses a machine that is not the one of the `fingerprints` of the calibrations behind the plan, unless forced.
    """
    plans = [strategy for case in cases for strategy in case.plans.values()]
    first = plans[0]
    ranks = meet(120.0)
    with together(ranks.exchange):
        backend = load_backend(first.hardware.backend)
        for strategy in plans:
            check_peer_limits(strategy, backend.name, backend.peer_limits)
        device = backend.device(int(os.environ.get("LOCAL_RANK", "0")))
        mine = machine(backend.name, device, ranks.size)
        if not force:
            _check_machine(mine, fingerprints)
    ranks.join(backend.torch_name, device, 300.0)
    groups = make_groups(first.parallelism, 300.0)
    timer = Timer(device, groups.control)
    peers = PeerPool(groups, backend)
    peers.make(device, DTYPES[first.deployment.activations], *plans)
    found = []
    with no_gradients():
        for case in cases:
            bench = _Bench(case, groups, backend, device, peers)
            by_plan: dict[str, dict[Key, list[float]]] = {name: {} for name in case.plans}
            for _ in range(rounds):
                for name, calls in bench.calls.items():
                    for key, call in calls.items():
                        bare = key[0] == "mlp_in" or (key[0] == "attn_in" and not case.latent_widths)
                        us = timer.samples(call, samples, spaced=bare, without=bench.besides.get(key))
                        by_plan[name].setdefault(key, []).append(median(us))
                        peers.check()
            found.append(by_plan)
    peers.close()
    return {"cases": found, "machine": mine}


def _check_machine(mine: dict[str, str], fingerprints: list[dict[str, str]]) -> None:
    for theirs in fingerprints:
        if different := differences(theirs, mine):
            raise RefusedError(
                f"the plan rests on a calibration of another machine ({different}); "
                "calibrate this one and plan again, or give --force",
                field="calibrations",
            )


class _Bench:
    """The calls of all distinct boundaries of a case's plans."""

    def __init__(self, case: Case, groups: Groups, backend: Backend, device: torch.device, peers: PeerPool) -> None:
        self._device = device
        any_plan = next(iter(case.plans.values()))
        self._dtype, self._width = DTYPES[any_plan.deployment.activations], any_plan.model.hidden_size
        p = any_plan.parallelism
        self._sizes = sizes_of(p, -(-case.tokens // p.attn_dp), -(-case.tokens // p.attn_dp))
        self._norm = PlainNorm(self._width, self._dtype, device)
        self._latents = [self._rows(columns, self._width) for columns in case.latent_widths]
        self.besides: dict[Key, Callable[[], Any]] = {}
        """What a call does besides its boundary."""
        self.calls: dict[str, dict[Key, Callable[[], Any]]] = {}
        for name, strategy in case.plans.items():
            executor = Executor(strategy, groups, backend, agree=False)
            element_bytes = self._norm.weight.element_size()
            programs = build_programs(strategy, groups, backend, executor.counters, element_bytes, peers)
            self.calls[name] = self._of_program(executor, programs[case.mode][0])

    def _rows(self, rows: int, width: int) -> Tensor:
        normal = torch.randn(rows, width, dtype=self._dtype, device=self._device)
        return normal.div_(width**0.5)

    def _of_program(self, executor: Executor, program: Program) -> dict[Key, Callable[[], Any]]:
        calls: dict[Key, Callable[[], Any]] = {}
        for each in program.bound[:-1]:  # a head_in is no boundary between blocks
            place = each.place
            key = key_of(place.boundary, str(replace(place.op, producer=None)), place.before, place.after)
            if key not in calls and place.op.kind.rows is not Rows.TAKEN:
                make = self._in if isinstance(each, BoundIn) else self._out
                calls[key] = make(executor, each)  # type: ignore[arg-type]
                if isinstance(each, BoundOut) and each.push is not None:
                    calls[key], self.besides[key] = self._pushed(executor, each)
        return calls

    def _pushed(self, executor: Executor, bound: BoundOut) -> tuple[Callable[[], Any], Callable[[], Any]]:
        """A boundary whose rows are made meanwhile, and what that does besides."""
        partial, one, push = self._rows(self._sizes.total, self._width), self._rows(1, self._width), bound.push
        rest, rows = self._out(executor, bound, partial), MadeRows(partial)
        assert push is not None

        def other() -> None:
            executor.backend.all_reduce(one, executor.groups.tp)

        return rows.pushed(lambda: push(partial, rows.make), rest, other), rows.besides(other)

    def _out(self, executor: Executor, bound: BoundOut, partial: Tensor | None = None) -> Callable[[], Any]:
        sizes, place = self._sizes, bound.place
        if partial is None:
            whole = place.boundary == "mlp_out" or executor.groups.parallelism.attn_dp == 1
            partial = self._rows(sizes.total if whole else sizes.of(DP_LOCAL), self._width)
        residual = self._rows(sizes.of(place.before.residual), self._width) if place.before else None

        def call() -> Any:
            stream = Stream(*cross_out(executor.now, bound, partial, residual, sizes), sizes, 1, sizes.own)
            return add_and_norm(executor.now, stream, self._norm)

        return call

    def _in(self, executor: Executor, bound: BoundIn) -> Callable[[], Any]:
        sizes, place = self._sizes, bound.place
        assert place.before is not None
        rows = self._rows(sizes.of(place.before.hidden), self._width)
        latents = self._latents if place.boundary == "attn_in" else []

        def call() -> Any:
            if bound.latent:
                return cross_in(executor.now, bound, torch.cat([F.linear(rows, w) for w in latents], dim=-1), sizes)
            gathered = cross_in(executor.now, bound, rows, sizes)
            return [F.linear(gathered, w) for w in latents]

        return call


def key_of(boundary: str, op: str, before: State | None, after: State) -> Key:
    """What tells one boundary from another: place, op and layouts around it."""
    return (boundary, op, str(before), str(after))
