"""Whatever a plan or a calibration asks for has room, and what a machine cannot run is left out of a calibration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from commplan.planner.calibration.needed_points import points_of
from commplan.planner.descriptions.loader import load_setup
from commplan.runtime.backends import Backend
from commplan.runtime.calibration.own import OwnCollectives, is_own
from commplan.runtime.calibration.point_calls import Point
from commplan.runtime.errors import RefusedError
from commplan.runtime.kernels.peer_impls import KERNEL_GROUPS, KERNEL_LIMITS, KERNEL_WIRES, Room, room_of
from commplan.runtime.ranks.groups import Group

CPU = torch.device("cpu")
QUANTISED = ("gather", "two_shot")
TOLD = (None, "one_shot", "two_shot")
ALGORITHMS = {
    "all_reduce": TOLD,
    "pair": TOLD,
    "int8_all_reduce": QUANTISED,
    "quantized_all_reduce": QUANTISED,
}
GROUPS = {size: Group("tp", None, size, 0) for size in (2, 4, 8)}
DIVISORS = [(ranks, attn_tp) for ranks in range(2, 9) for attn_tp in range(1, ranks + 1) if ranks % attn_tp == 0]


# ---- workspaces ------------------------------------------------------------------------------------------------------


class _NoKernel:
    """Takes every launch, and runs nothing."""

    def __getitem__(self, grid: tuple[int]) -> Any:
        return lambda *_, **__: None


@pytest.fixture(scope="module")
def peers_with() -> Iterator[Any]:
    """Makes the kernels' Peers, with workspaces that are nothing but a size."""
    pytest.importorskip("triton", reason="needs triton (Linux)")
    from commplan.runtime.kernels import op_launches
    from commplan.runtime.kernels import peer_kernels as module

    def make(ranks: int, width: int, room: Room) -> Any:
        def space(size: int) -> Any:
            return SimpleNamespace(half_bytes=size, peers=None) if size else None

        plain, small = module.half_bytes(ranks, width, room)
        return module.PeerKernels(
            Group("tp", None, ranks, 0), space(plain), space(small), torch.zeros(1), torch.zeros(1)
        )

    with pytest.MonkeyPatch.context() as patch:
        kernels = ("one_shot", "two_shot", "reduce_scatter", "all_gather")
        for name in (*kernels, *(f"{sums}_sum{how}" for sums in ("gather", "scatter") for how in ("", "_in_two"))):
            patch.setattr(op_launches, f"{name}_kernel", _NoKernel())
        yield make


@settings(deadline=None, derandomize=True)
@given(
    split=st.sampled_from(DIVISORS),
    width=st.sampled_from([16, 512, 1024, 2112, 7168]),
    group_rows=st.integers(1, 3000),
    fewer=st.floats(0.0, 1.0),
)
def test_every_op_has_room_for_what_was_asked_for_and_for_less(
    peers_with: Any, split: tuple[int, int], width: int, group_rows: int, fewer: float
) -> None:
    ranks, attn_tp = split
    attn_dp = ranks // attn_tp
    for op in ("all_reduce", "all_gather", "reduce_scatter", "int8_all_reduce", "quantized_all_reduce", "pair"):
        for algorithm in ALGORITHMS.get(op, (None,)):
            name = "all_reduce_all_gather" if op == "pair" else op
            most = group_rows * attn_dp
            peers = peers_with(ranks, width, room_of(name, algorithm, most, attn_dp))
            for rows in {most, max(1, round(fewer * most)), 1}:
                _call(peers, op, algorithm, rows, width, attn_tp)


def _call(peers: Any, op: str, algorithm: str | None, rows: int, width: int, attn_tp: int) -> None:
    ranks = peers.size
    x = torch.empty(rows, width, dtype=torch.bfloat16, device="meta")
    if op == "all_reduce":
        peers.all_reduce(x, algorithm), peers.all_reduce_norm(x, None, x[0], 1e-6, algorithm)
    elif op == "int8_all_reduce":
        peers.int8_all_reduce(x, algorithm), peers.int8_all_reduce_norm(x, algorithm, x, x[0], 1e-6)
    elif op == "quantized_all_reduce":
        for wire, group in itertools.product(KERNEL_WIRES, KERNEL_GROUPS):
            peers.quantized_all_reduce(x, algorithm, wire, group)
    elif op == "reduce_scatter":
        peers.reduce_scatter(x), peers.reduce_scatter_norm(x, None, x[0], 1e-6)
    elif op == "all_gather":
        peers.all_gather(x[: -(-rows // ranks)])
    else:
        group_rows = max(1, rows // (ranks // attn_tp))
        peers.gather_sum(x[:group_rows], attn_tp, algorithm)
        peers.scatter_sum(x.new_empty(group_rows * (ranks // attn_tp), width), attn_tp, algorithm)


def test_more_than_was_asked_for_is_refused(peers_with: Any) -> None:
    x = torch.empty(50, 64, dtype=torch.bfloat16, device="meta")
    peers = peers_with(4, 64, Room(int8_rows=8))
    with pytest.raises(RefusedError, match="it was made for fewer rows"):
        peers.int8_all_reduce(x, "two_shot")
    with pytest.raises(RefusedError, match="no room was asked for"):
        peers.all_reduce(x)


def test_a_plan_that_quantises_nothing_takes_no_memory_for_int8() -> None:
    pytest.importorskip("triton", reason="needs triton (Linux)")
    from commplan.runtime.kernels.room import half_bytes

    assert half_bytes(2, 5120, Room(rows=16384)) == (16384 * 5120 * 2, 0)
    assert half_bytes(8, 4096, Room(int8_rows=4096)) == (0, 7 * 2 * 512 * (4096 + 64 * 2))
    assert half_bytes(8, 4096, Room(pair_rows=100)) == (7 * 101 * 8192, 0)


# ---- calibrating -----------------------------------------------------------------------------------------------------


class _Noting:
    """Peers that note calls, each as (name, rows, what it is told)."""

    def __init__(self, room: Room) -> None:
        self.room, self.calls, self.closed = room, [], False

    def __getattr__(self, name: str) -> Any:
        def call(x: torch.Tensor, *more: Any) -> torch.Tensor:
            self.calls.append((name, x.shape[0], *(n for n in more if not isinstance(n, torch.Tensor))))
            return x

        return call

    def check(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class _Machine(Backend):
    """A backend whose Peers note calls, or whose driver has no peer-to-peer memory."""

    name, peer_limits = "a machine", KERNEL_LIMITS

    def __init__(self, error: str | None = None) -> None:
        self.error, self.made = error, []

    def peers(self, group: Group, device: torch.device, dtype: torch.dtype, width: int, room: Room) -> Any:
        if self.error is not None:
            raise RuntimeError(self.error)
        self.made.append(_Noting(room))
        return self.made[-1]


def points_by_pair_kernels() -> list[Point]:
    """Those that the planner asks for where attention is split in two ranks by four DP groups."""
    setup = load_setup("qwen3-235b-h200-dp4", ("modes.prefill.tokens=[1,64]", "modes.decode.tokens=[1,64]"))
    return [Point(*p) for p in points_of([setup])]


def test_the_planners_points_of_pairs_are_measured_in_the_shape_that_was_planned() -> None:
    points, backend = points_by_pair_kernels(), _Machine()
    own = OwnCollectives(points, backend, GROUPS, CPU, lambda mine: [mine])
    assert own.left_out == {}
    pairs = [p for p in points if is_own(p) and p.columns]
    hows = ("", ".one_shot", ".two_shot")
    assert {p.name for p in pairs} == {
        name + how for name in ("all_reduce_all_gather", "reduce_scatter_all_reduce") for how in hows
    }
    for point in pairs:
        assert (point.group_size, point.columns) == (8, 4)
        own.call_of(point)()
        name, _, how = point.name.partition(".")
        gathers, told = name == "all_reduce_all_gather", (2, how or None)
        called = ("gather_sum", point.rows // 4, *told) if gathers else ("scatter_sum", point.rows, *told)
        assert [peers.calls[-1] for peers in backend.made if peers.calls[-1][0] == called[0]][-1:] == [called]


def test_every_point_of_ours_has_room() -> None:
    points, backend = points_by_pair_kernels(), _Machine()
    own = OwnCollectives(points, backend, GROUPS, CPU, lambda mine: [mine])
    for point in filter(is_own, points):
        op, algorithm, *_ = (*point.name.split("."), None)
        room = room_of(str(op), algorithm, point.rows, point.columns or 1)
        assert own._peers[point.group_size, point.width, point.dtype].room.holds(room), point


@pytest.mark.parametrize("here", [True, False], ids=["on this rank", "on another rank"])
def test_what_cannot_run_on_a_machine_is_left_out_on_all_ranks(here: bool) -> None:
    reason = "no peer-to-peer access between devices 0 and 1"
    points, backend = points_by_pair_kernels(), _Machine(reason if here else None)
    own = OwnCollectives(points, backend, GROUPS, CPU, lambda mine: [mine, "" if here else reason])
    assert not any(own.has(p) for p in points)
    assert all(peers.closed for peers in backend.made)
    assert own.left_out == {reason: sum(map(is_own, points))}
