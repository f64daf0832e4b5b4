"""What ranks share for a plan's collectives of our own: Peers for each group and width; what carries messages through
the host's memory for each group, and sums a few rows there for each group and width. All boundaries and ranges of a
plan use the same."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

import torch

from commplan.planner.strategy.file import GroupName, StrategyFile

from ..backends import Backend
from ..collectives.host_one_shot import HostOneShot
from ..collectives.host_staging import HostStaging
from ..kernels.peer_impls import PeersKey, Room, messages_needed, one_shots_needed, peers_needed
from ..kernels.peers import Peers
from ..ranks.agreement import exchange_over, together
from ..ranks.groups import Groups


class _Shared(Protocol):
    def check(self) -> None: ...

    def close(self) -> None: ...


_Key = TypeVar("_Key")
_What = TypeVar("_What", bound=_Shared)
_Size = TypeVar("_Size")


class PeerPool:
    """Makes them when a plan asks for them, and keeps them: their number and size depend on no number of calls.

    A plan that needs less than what is there makes nothing. One that needs more room has those made anew.
    """

    def __init__(self, groups: Groups, backend: Backend) -> None:
        self._groups, self._backend = groups, backend
        self._peers: dict[PeersKey, tuple[Peers, Room]] = {}
        self._carriers: dict[GroupName, tuple[HostStaging, int]] = {}
        self._one_shots: dict[PeersKey, tuple[HostOneShot, int]] = {}

    def make(self, device: torch.device, dtype: torch.dtype, *plans: StrategyFile) -> None:
        """Have all that some plans need. Every rank calls this for the same ones; all succeed or none.

        What is replaced is closed: whoever holds it must be bound anew.
        """
        room: dict[PeersKey, Room] = {}
        for key, needed in peers_needed(*plans).items():
            has = self._peers[key][1] if key in self._peers else Room()
            if key not in self._peers or not has.holds(needed):
                room[key] = needed.joined(has)
        sizes = _lacking(messages_needed(*plans), self._carriers)
        rows = _lacking(one_shots_needed(*plans), self._one_shots)
        peers, carriers = dict[PeersKey, tuple[Peers, Room]](), dict[GroupName, tuple[HostStaging, int]]()
        one_shots = dict[PeersKey, tuple[HostOneShot, int]]()
        if not room and not sizes and not rows:
            return
        try:  # all ranks agree after each: those of a group that was refused would wait for others in the next
            for group, width in sorted(room):
                space = room[group, width]
                with self._together():
                    made = self._backend.peers(self._groups.of(group), device, dtype, width, space)
                    peers[group, width] = made, space
            for group in sorted(sizes):
                with self._together():
                    carriers[group] = HostStaging.make(self._groups.of(group), device, sizes[group]), sizes[group]
            for key in sorted(rows):
                with self._together():
                    summing = HostOneShot.make(self._groups.of(key[0]), device, dtype, key[1], rows[key])
                    one_shots[key] = summing, rows[key]
        except Exception:
            _close(peers)
            _close(carriers)
            _close(one_shots)
            raise
        _replace(self._peers, peers)
        _replace(self._carriers, carriers)
        _replace(self._one_shots, one_shots)

    def _together(self) -> AbstractContextManager[Any]:
        return together(exchange_over(self._groups.control))

    def of(self, group: GroupName, width: int) -> Peers:
        """Those that `make` has made for a plan."""
        return self._peers[group, width][0]

    def carrier_of(self, group: GroupName) -> HostStaging:
        """The one that `make` has made for a plan."""
        return self._carriers[group][0]

    def one_shot_of(self, group: GroupName, width: int) -> HostOneShot:
        """The one that `make` has made for a plan."""
        return self._one_shots[group, width][0]

    def check(self) -> None:
        """Raises BoundaryError if one of them has given up waiting for a rank."""
        for peers, _ in self._peers.values():
            peers.check()
        for carrier, _ in self._carriers.values():
            carrier.check()
        for summing, _ in self._one_shots.values():
            summing.check()

    def close(self) -> None:
        """Give everything back."""
        _close(self._peers)
        _close(self._carriers)
        _close(self._one_shots)
        self._peers, self._carriers, self._one_shots = {}, {}, {}


def _lacking(needed: Mapping[_Key, int], made: Mapping[_Key, tuple[_What, int]]) -> dict[_Key, int]:
    """What has to be made, or made larger."""
    return {key: size for key, size in needed.items() if key not in made or made[key][1] < size}


def _replace(made: dict[_Key, tuple[_What, _Size]], fresh: dict[_Key, tuple[_What, _Size]]) -> None:
    _close({key: made[key] for key in fresh if key in made})
    made |= fresh


def _close(made: Mapping[_Key, tuple[_What, _Size]]) -> None:
    for shared, _ in made.values():
        shared.close()
