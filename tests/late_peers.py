"""A rank that is late, or never comes, seen from both sides; emulated and on GPUs.

Every call has other values, so that a row of one call is never right in another. A result is right where it is what the
ranks gave to that very call; it may be NaN on a rank that has given up; it may be nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .peer_cases import EPS, shard_of

ROWS, WIDTH = 2, 64
_PATIENT_S = 120.0
# In the call in which a row is given up, these still give the rank's own rows: they are right.
OWN_ROWS_STAY = ("all_gather", "gather_sum 1", "gather_sum 2, groups", "gather_sum 2 two_shot, groups")
Results = tuple[Tensor, ...]


class Call(NamedTuple):
    """Inputs of a call: every rank's partial rows, the residual, the weight."""

    parts: list[Tensor]
    residual: Tensor
    weight: Tensor

    def total(self) -> Tensor:
        """The sum in float64."""
        return torch.stack([part.double() for part in self.parts]).sum(0)


class Kind(NamedTuple):
    """One op of Peers: how it is called on a rank, and what it must give there. Of a norm the total is looked at."""

    run: Callable[[Any, Call, int], Results]
    wanted: Callable[[Call, int], Tensor]


def call_of(number: int, world: int, device: str) -> Call:
    """Inputs of call `number`, those of its neighbours times 2 or half."""
    rows = torch.arange(ROWS, device=device)[:, None] / 8 + torch.arange(WIDTH, device=device) % 3 / 4 + 1
    parts = [(rows * (rank + 1) * 2.0 ** (number % 8)).to(torch.bfloat16) for rank in range(world)]
    return Call(parts, parts[0] * 0.5, torch.ones(WIDTH, dtype=torch.bfloat16, device=device))


def kinds(world: int) -> dict[str, Kind]:
    """Every op, with and without its norm."""

    def summed(call: Call, rank: int) -> Tensor:
        return call.total()

    def with_residual(call: Call, rank: int) -> Tensor:
        return call.total() + call.residual.double()

    found = {
        "all_reduce": Kind(lambda p, c, r: (p.all_reduce(c.parts[r]),), summed),
        "all_reduce_norm": Kind(
            lambda p, c, r: p.all_reduce_norm(c.parts[r], c.residual, c.weight, EPS)[::-1], with_residual
        ),
        "all_reduce pushed": Kind(lambda p, c, r: (p.all_reduce(c.parts[r], "pushed"),), summed),
        "all_reduce pushed norm": Kind(
            lambda p, c, r: p.all_reduce_norm(c.parts[r], c.residual, c.weight, EPS, "pushed")[::-1], with_residual
        ),
        "reduce_scatter": Kind(
            lambda p, c, r: (p.reduce_scatter(c.parts[r]),), lambda c, r: shard_of(c.total(), r, world)
        ),
        "reduce_scatter_norm": Kind(
            lambda p, c, r: p.reduce_scatter_norm(c.parts[r], None, c.weight, EPS)[::-1],
            lambda c, r: shard_of(c.total(), r, world),
        ),
        "all_gather": Kind(
            lambda p, c, r: (p.all_gather(c.parts[r]),), lambda c, r: torch.cat([x.double() for x in c.parts])
        ),
    }
    for algorithm in ("gather", "two_shot"):
        found[f"int8 {algorithm}"] = Kind(
            lambda p, c, r, a=algorithm: (p.int8_all_reduce(c.parts[r], a),),  # type: ignore[misc]
            summed,
        )
        found[f"int8 {algorithm} norm"] = Kind(
            lambda p, c, r, a=algorithm: p.int8_all_reduce_norm(c.parts[r], a, c.residual, c.weight, EPS)[::-1],  # type: ignore[misc]
            with_residual,
        )
    sizes = [a for a in range(1, world + 1) if world % a == 0 and ROWS % (world // a) == 0]
    for attn_tp, how in [(a, None) for a in sizes] + [(a, "two_shot") for a in sizes if a > 1]:
        name = (f"{attn_tp}" if how is None else f"{attn_tp} {how}") + (", groups" if 1 < attn_tp < world else "")
        found[f"gather_sum {name}"] = Kind(
            lambda p, c, r, a=attn_tp, how=how: (p.gather_sum(c.parts[r], a, how),),  # type: ignore[misc]
            lambda c, r, a=attn_tp: (  # type: ignore[misc]
                torch.stack([x.double() for x in c.parts]).view(world // a, a, ROWS, WIDTH).sum(1).flatten(0, 1)
            ),
        )
        found[f"scatter_sum {name}"] = Kind(
            lambda p, c, r, a=attn_tp, how=how: (p.scatter_sum(c.parts[r], a, how),),  # type: ignore[misc]
            lambda c, r, a=attn_tp: c.total().chunk(world // a)[r // a],  # type: ignore[misc]
        )
    return found


def verdict(kind: Kind, number: int, ranks: tuple[int, int], results: Results) -> str:
    """Of a call: `right`, `NaN` (all of it), `right or NaN` (element by element), or `wrong`."""
    rank, world = ranks
    device = "cpu" if results[0].device.type == "cpu" else "cuda"
    wanted = kind.wanted(call_of(number, world, device), rank)
    lost = torch.isnan(results[0])
    if all(bool(torch.isnan(result).all()) for result in results):
        return "NaN"
    near = (results[0].double() - wanted).abs() <= 0.03 * wanted.abs()
    if not bool((near | lost).all()) or any(bool(torch.isinf(result).any()) for result in results):
        return "wrong"
    return "right or NaN" if any(bool(torch.isnan(result).any()) for result in results) else "right"


class Meeting:
    """Ranks that wait for each other through files: no collective, which a late rank would hold up."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._folder, self._rank = folder, rank

    def say(self, word: str) -> None:
        """This rank has come so far."""
        (self._folder / f"{word} {self._rank}").touch()

    def hear(self, word: str, rank: int) -> None:
        """Wait until another rank has come so far."""
        end = time.monotonic() + _PATIENT_S
        while not (self._folder / f"{word} {rank}").exists():
            assert time.monotonic() < end, f"rank {rank} has not said {word}"
            time.sleep(0.001)

    def all(self, word: str, world: int) -> None:
        """Wait for everyone."""
        self.say(word)
        for rank in range(world):
            self.hear(word, rank)


class Fault(NamedTuple):
    """The last rank is late by its call `at`, or dead from there on; the others go on to call `going_on` times."""

    at: int
    dead: bool
    going_on: int = 4


def every_fault(world: int, calls: tuple[int, ...], of: str = "") -> list[tuple[str, str, Fault]]:
    """(name, op, fault) of every op, or of those whose name holds `of`, with its peer late or dead at these calls."""
    return [
        (f"{op} at {at}, {'dead' if dead else 'late'}", op, Fault(at, dead))
        for op in kinds(world)
        if of in op
        for at in calls
        for dead in (False, True)
    ]


def judge_faults(faults: list[tuple[str, str, Fault]], by_rank: list[list[tuple[str, list[str], str]]]) -> None:
    """Assert that who waited has right results up to the fault and NaN from it on, and the late rank nothing wrong."""
    *waited, late = by_rank
    for (name, op, fault), of_late, *of_others in zip(faults, late, *waited, strict=True):
        for _, found, said in of_others:
            first = "right or NaN" if op in OWN_ROWS_STAY else "NaN"
            assert found == ["right"] * fault.at + [first] + ["NaN"] * (fault.going_on + 1), name
            assert "a peer has sent nothing" in said, name
        _, found, said = of_late
        assert found[: fault.at] == ["right"] * fault.at, name
        if not fault.dead:
            # Its peers had sent rows of this call. Of three ranks those may be rows for others than the late one.
            # Those that were pushed are called back.
            lost = len(waited) > 1 or "pushed" in op
            assert found[fault.at] in ("right", "right or NaN", *["NaN"] * lost), name
            assert found[fault.at + 1] in ("NaN", first), "its peers send nothing any more"
            assert set(found[fault.at + 2 :]) == {"NaN"}, name
            assert "a peer has sent nothing" in said, name


def judge_wandering(by_rank: list[list[list[str]]]) -> None:
    """Assert that nothing is wrong, and that a rank that got NaN, or gave up, soon gives nothing else.

    One call later, that is: what it got may be the NaN of a peer that gave up, and only then is it left alone.
    """
    seen = set()
    for of_rank in by_rank:
        for found in of_rank:
            assert "wrong" not in found, found
            after = found[next((n for n, v in enumerate(found) if v != "right"), len(found)) :]
            assert set(after[2:]) <= {"NaN"}, found
            seen |= set(found)
    assert {"right", "NaN"} <= seen, "patience is such that both happen"


def verdicts(peers: Any, kind: Kind, fault: Fault, meeting: Meeting, ranks: tuple[int, int], looks: int) -> list[str]:
    """Of every call of this rank. Patience is lowered when all have ended what comes before the fault."""
    rank, world = ranks
    device = "cuda" if torch.cuda.is_available() else "cpu"
    late = rank == world - 1

    def run(number: int) -> Results:
        return kind.run(peers, call_of(number, world, device), rank)

    done = [run(number) for number in range(fault.at)]
    _finish(device)
    meeting.all("before", world)
    peers.looks = looks
    if late and fault.dead:
        meeting.say("late rank is through")
    else:
        if late:
            for other in range(world - 1):
                meeting.hear("gone on", other)
        done += [run(number) for number in range(fault.at, fault.at + fault.going_on)]
        _finish(device)
        meeting.say("late rank is through" if late else "gone on")
    if not late:  # what the late rank has sent in the meantime lies in the slots
        meeting.hear("late rank is through", world - 1)
        number = fault.at + fault.going_on
        done += [run(number), run(number + 1)]
    _finish(device)
    return [verdict(kind, number, ranks, results) for number, results in enumerate(done)]


def wandering(peers: Any, ranks: tuple[int, int], looks: int, seed: int, longest_s: float) -> list[str]:
    """Twelve calls of ops drawn at random, alike on all ranks; each rank is late by random times of its own.

    All patience is there for the first three: on a busy machine a rank is late by itself.
    """
    rank, world = ranks
    device = "cuda" if torch.cuda.is_available() else "cpu"
    alike, own = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(1000 * seed + rank)
    all_kinds = list(kinds(world).values())
    done = []
    for number in range(12):
        peers.looks = peers.looks if number < 3 else looks
        kind = all_kinds[int(torch.randint(0, len(all_kinds), (1,), generator=alike))]
        if int(torch.randint(0, 3, (1,), generator=own)) == 0:
            time.sleep(float(torch.rand(1, generator=own)) * longest_s)
        done.append((kind, kind.run(peers, call_of(number, world, device), rank)))
        if number % 4 == 3:
            _finish(device)
    _finish(device)
    return [verdict(kind, number, ranks, results) for number, (kind, results) in enumerate(done)]


def _finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def said_by(peers: Any) -> str:
    """What its check says; empty if nothing is wrong."""
    from commplan.runtime.errors import BoundaryError

    try:
        peers.check()
    except BoundaryError as error:
        return str(error)
    return ""


@contextmanager
def finite_memory() -> Iterator[None]:
    """Memory of results holds a finite value before a kernel writes it: what is NaN was made NaN."""
    from commplan.runtime.kernels import custom_ops

    inner = custom_ops.new_rows
    custom_ops.new_rows = lambda *shape: lambda x: inner(*shape)(x).fill_(7.0)
    try:
        yield
    finally:
        custom_ops.new_rows = inner
