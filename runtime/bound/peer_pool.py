"""The Peers of an executor: one for each group and width, shared by all boundaries and ranges of its plan."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from commplan.planner.strategy.file import GroupName

from ..backends import Backend
from ..kernels.peer_impls import PeersKey, Room
from ..kernels.peers import Peers
from ..ranks.agreement import exchange_over, together
from ..ranks.groups import Groups


class PeerPool:
    """Makes Peers when a plan asks for them, and keeps them: their number and size depend on no number of calls.

    A plan that needs less than what is there makes nothing. One that needs more room has those Peers made anew.
    """

    def __init__(self, groups: Groups, backend: Backend) -> None:
        self._groups, self._backend = groups, backend
        self._made: dict[PeersKey, tuple[Peers, Room]] = {}

    def make(self, needed: Mapping[PeersKey, Room], device: torch.device, dtype: torch.dtype) -> None:
        """Have Peers with at least so much room. Every rank calls this for the same plan; all succeed or none.

        Peers that are replaced are closed: whoever holds them must be bound anew.
        """
        missing = [k for k in sorted(needed) if k not in self._made or not self._made[k][1].holds(needed[k])]
        if not missing:
            return
        fresh: dict[PeersKey, tuple[Peers, Room]] = {}
        try:
            with together(exchange_over(self._groups.control)):
                for group, width in missing:
                    room = needed[group, width]
                    if (group, width) in self._made:
                        room = room.joined(self._made[group, width][1])
                    peers = self._backend.peers(self._groups.of(group), device, dtype, width, room)
                    fresh[group, width] = peers, room
        except Exception:
            _close(fresh)
            raise
        _close({key: self._made[key] for key in fresh if key in self._made})
        self._made |= fresh

    def of(self, group: GroupName, width: int) -> Peers:
        """Those that `make` has made for a plan."""
        return self._made[group, width][0]

    def check(self) -> None:
        """Raises BoundaryError if a kernel has given up waiting for a rank."""
        for peers, _ in self._made.values():
            peers.check()

    def close(self) -> None:
        """Give everything back."""
        _close(self._made)
        self._made = {}


def _close(made: Mapping[PeersKey, tuple[Peers, Room]]) -> None:
    for peers, _ in made.values():
        peers.close()
