"""Runs on a rank: forwards under plans that name collectives of our own, composed of gloo's where there is no GPU."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

from commplan.planner.strategy.file import StrategyFile
from commplan.runtime import Executor, load_model
from commplan.runtime.backends import gloo
from commplan.runtime.bound.counts import expected_calls
from commplan.runtime.errors import BoundaryError
from commplan.runtime.kernels.peer_impls import PeerLimits, Room
from commplan.runtime.kernels.peers import Peers
from commplan.runtime.ranks.groups import Group

from ..cases import cases, split
from ..parity import DECODE_STEPS, Named, forward, largest_error, mine, reference
from ..prompts import requests
from ..reference_peers import ReferencePeers
from ..transformers.compiled import Compiled, compiled

METHODS = (
    "all_reduce",
    "all_reduce_norm",
    "int8_all_reduce",
    "int8_all_reduce_norm",
    "reduce_scatter",
    "reduce_scatter_norm",
    "all_gather",
    "gather_sum",
    "scatter_sum",
)


class PeersOverGloo(gloo.GlooBackend):
    """gloo with the reference of our collectives in the place of kernels; counts what it makes."""

    peer_limits = PeerLimits(("fp32", "bf16", "fp16"), 8, 1)

    def __init__(self) -> None:
        self.made: list[ReferencePeers] = []

    def peers(self, group: Group, device: torch.device, dtype: torch.dtype, width: int, room: Room) -> Peers:
        self.made.append(ReferencePeers(self, group, width, room))
        return self.made[-1]


@contextmanager
def own_collectives() -> Iterator[None]:
    """Executors that are loaded inside have collectives of our own."""
    before, gloo.BACKEND = gloo.BACKEND, PeersOverGloo
    try:
        yield
    finally:
        gloo.BACKEND = before


@contextmanager
def loaded(checkpoint: str, file: StrategyFile, **options: Any) -> Iterator[Executor]:
    with own_collectives():
        executor = load_model(checkpoint, file, **options)
    try:
        yield executor
    finally:
        executor.close()
        gc.collect()


@contextmanager
def seen_methods(executor: Executor) -> Iterator[list[str]]:
    """The calls that the plan's boundaries make of Peers; those that these make of each other are not seen."""
    seen: list[str] = []
    depth = [0]

    def spied(name: str, method: Any) -> Any:
        def call(self: ReferencePeers, *args: Any, **kwargs: Any) -> Any:
            seen.extend([name] * (not depth[0]))
            depth[0] += 1
            try:
                return method(self, *args, **kwargs)
            finally:
                depth[0] -= 1

        return call

    methods = {name: getattr(ReferencePeers, name) for name in METHODS}
    for name, method in methods.items():
        setattr(ReferencePeers, name, spied(name, method))
    executor.build()  # what is bound already holds the methods as they were
    try:
        yield seen
    finally:
        for name, method in methods.items():
            setattr(ReferencePeers, name, method)
        executor.build()


class Expected(NamedTuple):
    """A plan with the Peers' methods that a prefill and a decode step call, in order."""

    plan: Named
    prefill: list[str]
    decode: list[str]


def failures(checkpoint: str, plans: list[Expected], bound: float) -> list[str]:
    """What went wrong on this rank: logits out of bounds, counters or calls other than planned."""
    found = []
    with loaded(checkpoint, plans[0].plan.file) as executor:
        for (name, file, *_), prefill, decode in plans:
            executor.switch(file)
            todo = cases(file.parallelism.attn_dp)
            with seen_methods(executor) as seen:
                for case in todo:
                    error = largest_error(executor, checkpoint, case, DECODE_STEPS)
                    if error > bound:
                        found.append(f"{name}, {case.name}: logits differ by {error:.2e}")
            if executor.counters.calls() != expected_calls(file, executor.forwards):
                found.append(f"{name}: {executor.counters.calls()} ran")
            if seen != len(todo) * (prefill + DECODE_STEPS * decode):
                found.append(f"{name}: called {seen[:12]} ..., planned {prefill} and {decode}")
    return found


def logits(checkpoint: str, files: list[StrategyFile], attn_dp: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(logits, those of one process) of this rank's requests under each plan: a prefill and a decode step."""
    found = []
    with loaded(checkpoint, files[0]) as executor:
        for file in files:
            executor.switch(file)
            first, batch, seq = mine(executor, split(4, 7, attn_dp))
            ids, cache = requests()[first : first + batch], DynamicCache(config=executor.model.config)
            got = [forward(executor, "prefill", ids[:, :seq], cache)]
            got += [forward(executor, "decode", ids[:, seq : seq + 1], cache)]
            found.append((torch.cat(got, 1), reference(checkpoint)[first : first + batch, : seq + 1]))
    return found


class Overwritten(NamedTuple):
    """A forward: whether each sum with its norm was told to overwrite, did, and what became of what layers returned."""

    told: list[bool]
    done: list[bool]
    seen_stays: bool


def overwritten(checkpoint: str, file: StrategyFile) -> Overwritten:
    told, done, seen = [], [], []
    inner = ReferencePeers.all_reduce_norm

    def spied(self: Any, x: Any, **given: Any) -> Any:
        normed, total = inner(self, x, **given)
        told.append(given["overwrite"])
        done.append(total is given["residual_TH"])
        return normed, total

    def keep(_: Any, given: Any, stream: Any) -> None:
        found = [stream.hidden_RH, stream.residual_RH, *(g for g in given if isinstance(g, torch.Tensor))]
        seen.extend((tensor, tensor.clone()) for tensor in found if tensor is not None)

    ReferencePeers.all_reduce_norm = spied  # type: ignore[method-assign]
    try:
        with loaded(checkpoint, file) as executor:
            for layer in executor.model.model.layers:
                layer.register_forward_hook(keep)
            forward(executor, "prefill", requests()[:2, :5])
    finally:
        ReferencePeers.all_reduce_norm = inner  # type: ignore[method-assign]
    return Overwritten(told, done, all(torch.equal(tensor, before) for tensor, before in seen) and bool(seen))


def compiled_with_own(checkpoint: str, plan: Named) -> Compiled:
    with own_collectives():
        return compiled(checkpoint, plan)


class Made(NamedTuple):
    """Peers after a number of switches: how many were made in all, and (width, room) of those that are open."""

    in_all: int
    open: list[tuple[int, Room]]


def made_by_switches(checkpoint: str, files: list[StrategyFile]) -> list[Made]:
    found = []
    with loaded(checkpoint, files[0]) as executor:
        for file in files:
            executor.switch(file)
            for length in (5, 3, 5):
                forward(executor, "prefill", requests()[:2, :length])
            backend: Any = executor.backend
            found.append(Made(len(backend.made), [(p.width, p.room) for p in backend.made if not p.closed]))
    assert all(p.closed for p in backend.made)
    return found


def said_of_a_dead_peer(checkpoint: str, file: StrategyFile) -> list[str]:
    """What a forward, generate() and check_peers say once a kernel has given up."""
    said = []
    with loaded(checkpoint, file) as executor:
        forward(executor, "prefill", requests()[:2, :5])
        executor.check_peers()
        backend: Any = executor.backend
        give_up = _GivesUp()
        for peers in backend.made:
            peers.check = give_up
        calls = (
            lambda: forward(executor, "prefill", requests()[:2, :5]),
            lambda: executor.generate(requests()[:1, :5], max_new_tokens=2, do_sample=False, pad_token_id=0),
            executor.check_peers,
        )
        for call, after in zip(calls, (0, 2, 0), strict=True):
            give_up.after = after
            try:
                call()
                said.append("nothing")
            except BoundaryError as error:
                said.append(str(error))
    return said


class _GivesUp:
    """A check that fails after some calls."""

    after = 0

    def __call__(self) -> None:
        if self.after == 0:
            raise BoundaryError("rank 1 did not signal within 30 s", where="all_reduce over tp")
        self.after -= 1
