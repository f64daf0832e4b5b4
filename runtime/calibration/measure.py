"""Measuring a list of points on every rank, in rounds, so that a busy moment falls on few samples of each."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterable
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from commplan.planner.strategy.file import one_line

from ..backends import Backend, load_backend
from ..errors import RefusedError
from ..ranks.agreement import exchange_over, together
from ..ranks.groups import Group, control_group, temporary_groups
from ..ranks.rendezvous import meet
from .composed import composed_call, is_composed
from .host import host_samples
from .own import OwnCollectives, is_bare, is_own
from .point_calls import Point, call_of
from .rivals import RivalKernels, is_rival
from .staged import HostCarriers, is_staged
from .timing import Call, Timer, no_gradients

_SAMPLES = 5  # per point and round
_ROUNDS = 4
_HOST_SAMPLES = 9


@temporary_groups()
def measure_rank(
    points: list[list[Any]],
    backend_name: str,
    seconds: float,
    known: dict[str, list[float]],
    known_machine: dict[str, str] | None,
    partial: str | None,
) -> dict[str, Any]:
    """Samples in us of every point, by its key, on this rank, and of the host's part; `machine` says what was measured.

    Stops after the round in which `seconds` are over; the first round is always completed. `known` holds samples of an
    interrupted run on `known_machine`, whose points the first round leaves out; another machine is refused. Rank 0
    appends its samples to the file `partial`.
    """
    ranks = meet(120.0)
    with together(ranks.exchange):
        backend = load_backend(backend_name)
        device = backend.device(int(os.environ.get("LOCAL_RANK", "0")))
        mine = machine(backend.name, device, ranks.size)
        if different := differences(known_machine or {}, mine):
            raise RefusedError(
                f"the interrupted run was on another machine ({different}); forget it with --fresh", file=partial
            )
    ranks.join(backend.torch_name, device, 300.0)
    control = control_group(300.0)
    todo = [Point(*values) for values in points]
    on_groups = [p for p in todo if p.kind == "collective" or is_own(p) or is_rival(p) or is_composed(p)]
    groups = _groups({point.group_size for point in on_groups}, control)
    exchange = exchange_over(control)
    with together(exchange):
        own = OwnCollectives(todo, backend, groups, device, exchange)
        rivals = RivalKernels(todo, backend, groups, device, exchange)
        carriers = HostCarriers(todo, groups, device, exchange)
    if control.rank == 0:
        _tell("collectives of our own", own.left_out)
        _tell("kernels of other libraries", rivals.left_out)
        _tell("sums through the host's memory", carriers.left_out)
    timer = Timer(device, control)
    samples = {key_of(point): list(known.get(key_of(point), [])) for point in todo}
    report = _Progress(len(todo), seconds, partial, mine) if control.rank == 0 else None
    with no_gradients():
        own.compile(todo, control.size)
        exchange("")  # no rank may call while another compiles: it would give up
        end = time.monotonic() + seconds
        for number in range(_ROUNDS):
            wanted = [p for p in _shuffled(todo, number) if number or not known.get(key_of(p))]
            for index, point in enumerate(wanted):
                if number and not timer.agree(time.monotonic() < end):
                    break
                if (is_own(point) and not own.has(point)) or (is_rival(point) and not rivals.has(point)):
                    continue
                if is_staged(point) and not carriers.has(point):
                    continue
                if groups.get(point.group_size) is None and (point.kind == "collective" or is_composed(point)):
                    continue
                call = _call_of(point, own, rivals, carriers, backend, groups, device)
                found = timer.samples(call, _SAMPLES, spaced=is_bare(point), without=own.besides(point))
                own.check()
                carriers.check()
                samples[key_of(point)] += found
                if report is not None:
                    report.done(number, index, len(wanted), point, found)
        host = host_samples(todo, own, backend, groups, timer, control.size, _HOST_SAMPLES)
    own.close()
    carriers.close()
    if report is not None:
        report.end()
    return {"samples": samples, "host": host, "machine": mine}


def _call_of(
    point: Point,
    own: OwnCollectives,
    rivals: RivalKernels,
    carriers: HostCarriers,
    backend: Backend,
    groups: dict[int, Group],
    device: torch.device,
) -> Call:
    """The call that a point of any kind stands for."""
    if is_own(point):
        return own.call_of(point)
    if is_rival(point):
        return rivals.call_of(point)
    if is_composed(point):
        return composed_call(point, backend, groups, device, carriers.of(point))
    return call_of(point, backend, groups, device)


def _tell(what: str, left_out: dict[str, int]) -> None:
    for reason, count in left_out.items():
        print(one_line(f"{count} points of {what} are left out: {reason}"), file=sys.stderr)


def key_of(point: Iterable[Any]) -> str:
    """A point as the key of a JSON object."""
    return " ".join(map(str, point))


def machine(backend: str, device: torch.device, ranks: int) -> dict[str, str]:
    """What tells this machine from another one."""
    found = {"ranks": str(ranks), "torch": torch.__version__.split("+")[0], "backend": backend}
    if device.type == "cuda":
        found["device"] = torch.cuda.get_device_name(device)
        found["library"] = "nccl " + ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
        kept_off = os.environ.get("NCCL_P2P_DISABLE") == "1"
        found["links"] = "peer to peer" if _all_reach_each_other() and not kept_off else "through the host"
    elif device.type == "npu":
        found["device"] = torch.npu.get_device_name(device)  # type: ignore[attr-defined]
    else:
        found["device"] = f"{platform.machine()}, {os.cpu_count()} cores"
    return found


def differences(theirs: dict[str, str], mine: dict[str, str]) -> str:
    """In which of the fingerprint's parts another machine differs from this one; empty where it is the same."""
    return "; ".join(f"{key} {theirs[key]}, here {mine.get(key)}" for key in theirs if theirs[key] != mine.get(key))


def _all_reach_each_other() -> bool:
    count = torch.cuda.device_count()
    return all(torch.cuda.can_device_access_peer(a, b) for a in range(count) for b in range(count) if a != b)


def _groups(sizes: set[int], control: Group) -> dict[int, Group]:
    """A group of every size: runs of neighbouring ranks."""
    found: dict[int, Group] = {}
    for size in sorted(sizes):
        if size == control.size:
            found[size] = Group("tp", dist.group.WORLD, size, control.rank)
            continue
        for first in range(0, control.size, size):
            members = list(range(first, first + size))
            handle = dist.new_group(members)
            if control.rank in members:
                found[size] = Group("attn_tp", handle, size, control.rank - first)
    return found


def _shuffled(points: list[Point], number: int) -> list[Point]:
    """The same order on every rank, another one every round: what ran before must not favour a point."""
    generator = torch.Generator().manual_seed(number)
    return [points[i] for i in torch.randperm(len(points), generator=generator).tolist()]


class _Progress:
    """Rank 0's bar on standard error, and the file of samples so far."""

    def __init__(self, points: int, seconds: float, partial: str | None, machine: dict[str, str]) -> None:
        self._points, self._seconds, self._partial = points, seconds, partial
        self._append({"machine": machine})
        self._start = time.monotonic()
        self._bar = sys.stderr.isatty()

    def done(self, number: int, index: int, count: int, point: Point, found: list[float]) -> None:
        """A point has been measured."""
        self._append({"key": key_of(point), "samples": found})
        passed = time.monotonic() - self._start
        last = index + 1 == count
        if self._bar or last:
            filled = int(30 * (index + 1) / count)
            text = f"round {number + 1} of {_ROUNDS} [{'#' * filled:30}] {index + 1}/{count}, {passed:.0f} s"
            text += f"  {point.name} {point.rows} x {point.width}: {median(found):.1f} us"
            print(f"\r{text:110}", end="\n" if not self._bar and last else "", file=sys.stderr, flush=True)

    def _append(self, line: dict[str, Any]) -> None:
        if self._partial is not None:
            try:
                with open(self._partial, "a", encoding="utf-8") as file:
                    file.write("\n" + json.dumps(line))  # after a line that was cut off, too
            except OSError as error:
                raise RefusedError(f"cannot be written: {error.strerror}", file=self._partial) from None

    def end(self) -> None:
        """Leave the bar's line."""
        if self._bar:
            print(file=sys.stderr)
