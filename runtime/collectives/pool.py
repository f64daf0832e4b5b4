"""The Peers of an executor: one for each group and width, shared by all boundaries and ranges of its plan."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..agreement import exchange_over, together
from ..backends import Backend
from ..groups import Groups
from ..peer_impls import PeersKey
from .peers import Peers


class PeerPool:
    """Makes Peers when a plan asks for them, and keeps them: their number and size depend on no number of calls.

    A plan that needs less than what is there makes nothing. One that needs more rows has those Peers made anew.
    """

    def __init__(self, groups: Groups, backend: Backend) -> None:
        self._groups, self._backend = groups, backend
        self._made: dict[PeersKey, tuple[Peers, int]] = {}

    def make(self, needed: Mapping[PeersKey, int], device: torch.device, dtype: torch.dtype) -> None:
        """Have Peers of at least so many rows. Every rank calls this for the same plan; all succeed or none.

        Peers that are replaced are closed: whoever holds them must be bound anew.
        """
        missing = [key for key in sorted(needed) if key not in self._made or self._made[key][1] < needed[key]]
        if not missing:
            return
        fresh: dict[PeersKey, tuple[Peers, int]] = {}
        try:
            with together(exchange_over(self._groups.control)):
                for group, width in missing:
                    rows = needed[group, width]
                    peers = self._backend.peers(self._groups.of(group), device, dtype, width, rows)
                    fresh[group, width] = peers, rows
        except Exception:
            _close(fresh)
            raise
        _close({key: self._made[key] for key in fresh if key in self._made})
        self._made |= fresh

    def of(self, group: str, width: int) -> Peers:
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


def _close(made: Mapping[PeersKey, tuple[Peers, int]]) -> None:
    for peers, _ in made.values():
        peers.close()
