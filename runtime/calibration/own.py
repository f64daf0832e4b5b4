"""Measuring collectives of our own: points whose kind is an impl of theirs.

kind        commplan_triton | commplan_triton_norm
name        the op, with what it is told: int8_all_reduce.gather, quantized_all_reduce.two_shot.int8.128
rows        of the whole message; of all_gather those that come out; of a pair all rows of the tp group
columns     the number of DP groups, of a pair

What cannot run on a machine is left out with its reason, on all ranks together: no plan will have it there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch

from commplan.planner.strategy.file import KINDS, OpKind, Rows

from ..backends import Backend
from ..errors import RefusedError
from ..kernels.peer_impls import CAN, PEER_IMPLS, TRITON, Room, room_of
from ..kernels.peers import Peers, Told, bare, with_norm
from ..ranks.agreement import Exchange, first_line
from ..ranks.groups import Group
from .made_rows import MadeRows
from .point_calls import DTYPES, PlainNorm, Point, random_rows
from .rivals import BARE_RIVALS

Key = tuple[int, int, str]
_TRIED_ROWS = 2  # of the call that shows whether kernels run here at all


def is_own(point: Point) -> bool:
    """Is this a point of ours?"""
    return point.kind in PEER_IMPLS


def is_bare(point: Point) -> bool:
    """Is this nothing but a collective, so that it is timed with a kernel behind it?"""
    return point.kind in ("collective", TRITON, *BARE_RIVALS)


class OwnCollectives:
    """Peers for all points that can be measured here: one for each group size, width and dtype."""

    def __init__(
        self,
        points: list[Point],
        backend: Backend,
        groups: dict[int, Group],
        device: torch.device,
        exchange: Exchange,
    ) -> None:
        self._device = device
        self._peers: dict[Key, Peers] = {}
        rooms: dict[Key, Room] = {}
        self.left_out: dict[str, int] = {}
        """Points that cannot be measured here, by reason."""
        counts: Counter[Key] = Counter()
        for point in filter(is_own, points):
            if (reason := _refusal(point, backend)) is not None:
                self._leave_out(reason, 1)
            else:
                rooms[_key(point)] = _room(point).joined(rooms.get(_key(point), Room(rows=_TRIED_ROWS)))
                counts[_key(point)] += 1
        for key in sorted(rooms):
            size, width, dtype = key
            made, reason = _made(backend, groups[size], device, DTYPES[dtype], width, rooms[key])
            if reasons := list(filter(None, exchange(reason))):  # on any rank: then none has them
                self._leave_out(reasons[0], counts[key])
                if made is not None:
                    made.close()
            elif made is not None:
                self._peers[key] = made

    def _leave_out(self, reason: str, count: int) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + count

    def has(self, point: Point) -> bool:
        """Can this point be measured here?"""
        return _key(point) in self._peers

    def call_of(self, point: Point) -> Callable[[], Any]:
        """The call that a point of ours stands for, with its inputs made."""
        peers, size = self._peers[_key(point)], point.group_size
        kind, told = _kind_of(point)
        if kind.gathers:
            shard = random_rows(point.rows // size, point, self._device)
            call = bare(peers, kind, told, size)
            return lambda: call(shard)
        if kind.spans_two:
            return _pair(kind, told, point, peers, self._device)
        x = random_rows(point.rows, point, self._device)
        if _is_pushed(point):
            return self._pushed(point, peers, x)
        if point.kind == TRITON:
            call = bare(peers, kind, told, size)
            return lambda: call(x)
        return _sum_and_norm(kind, told, peers, x, -(-point.rows // size))

    def _pushed(self, point: Point, peers: Peers, x: torch.Tensor) -> Callable[[], Any]:
        """A sum whose rows are made piece by piece."""
        kind, told = _kind_of(point)
        rows, sum_and_norm = MadeRows(x), _sum_and_norm(kind, told, peers, x, point.rows)
        return rows.pushed(lambda: peers.push(x, 0, rows.make), sum_and_norm, self._other(point))

    def _other(self, point: Point) -> Callable[[], Any]:
        peers, one = self._peers[_key(point)], random_rows(1, point, self._device)
        return lambda: peers.all_reduce(one)

    def besides(self, point: Point) -> Callable[[], Any] | None:
        """What the call of a point does besides what is measured; None where that is all."""
        if not is_own(point) or not _is_pushed(point):
            return None
        return MadeRows(random_rows(point.rows, point, self._device)).besides(self._other(point))

    def compile(self, points: Iterable[Point], ranks: int) -> None:
        """What these points launch, all at once rather than each when it is first measured."""
        if not any(peers.are_kernels for peers in self._peers.values()):
            return
        from ..kernels.compile_ahead import compiled_ahead  # imports triton

        with compiled_ahead(self._peers.values(), sharing=ranks):
            for point in points:
                if is_own(point) and self.has(point):
                    self.call_of(point)()

    def check(self) -> None:
        """Raises BoundaryError if a kernel has given up waiting for a rank: its times mean nothing."""
        for peers in self._peers.values():
            peers.check()

    def close(self) -> None:
        """Give the memory back."""
        for peers in self._peers.values():
            peers.close()


def _is_pushed(point: Point) -> bool:
    kind, told = _kind_of(point)
    return told.algorithm is not None and kind.way(told.algorithm).peers == "pushed"


def _made(
    backend: Backend, group: Group, device: torch.device, dtype: torch.dtype, width: int, room: Room
) -> tuple[Peers | None, str]:
    """(Peers that have summed something here, ""), or (None, why not)."""
    try:
        peers = backend.peers(group, device, dtype, width, room)
        peers.all_reduce(torch.ones(_TRIED_ROWS, width, dtype=dtype, device=device)).sum().item()
        peers.check()
    except Exception as error:  # whatever a driver, an allocator or a compiler says
        return None, first_line(error)
    return peers, ""


def _key(point: Point) -> Key:
    return point.group_size, point.width, point.dtype


def _room(point: Point) -> Room:
    """Of the message, padded to whole shards."""
    kind, told = _kind_of(point)
    return room_of(kind.name, told.algorithm, -(-point.rows // point.group_size) * point.group_size, point.columns or 1)


def _refusal(point: Point, backend: Backend) -> str | None:
    if backend.peer_limits is None:
        return f"{backend.name} has none"
    return backend.peer_limits.refuses(point.dtype, point.group_size, point.width)


def _kind_of(point: Point) -> tuple[OpKind, Told]:
    """The record of a point's op, and how it is done."""
    op, *told = point.name.split(".")
    measured = {name: kind for name, kind in KINDS.items() if kind.table == name and name in CAN.ops_of(point.kind)}
    if op not in measured:
        raise RefusedError(f"accepted: {', '.join(measured)}", field="point", value=op)
    return measured[op], Told(*told)  # type: ignore[arg-type]


def _sum_and_norm(kind: OpKind, told: Told, peers: Peers, x: torch.Tensor, shard_rows: int) -> Callable[[], Any]:
    norm, residual = PlainNorm(x.shape[1], x.dtype, x.device), torch.randn_like(x)
    if kind.rows is Rows.SCATTERED:
        residual = torch.randn_like(x[:1]).repeat(shard_rows, 1)
    call = with_norm(peers, kind, told)
    return lambda: call(x, residual, norm.weight, norm.variance_epsilon)


def _pair(kind: OpKind, told: Told, point: Point, peers: Peers, device: torch.device) -> Callable[[], Any]:
    attn_dp = point.columns
    if not 0 < attn_dp <= point.group_size or point.group_size % attn_dp:
        raise RefusedError(
            "the number of DP groups is expected, as the columns of a pair", field=kind.name, value=attn_dp
        )
    call = bare(peers, kind, told, point.group_size // attn_dp)
    groups = 1 if kind.enters == "dp_local" else attn_dp
    x = random_rows(point.rows // attn_dp * groups, point, device)
    return lambda: call(x)
