"""What carries the messages of a composed sum: the library, or something of ours."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from ..backends import Backend
from ..backends.base import Pending
from ..ranks.groups import Group


class Carrier(ABC):
    """Messages between `begin` and `end` are of one sum; every rank of the group sends as many, of the same sizes."""

    algorithms: tuple[str, ...]
    """Those whose messages it carries."""
    pieces: int | None = None
    """The most messages of a sum; None: any number."""
    gathers_in_place: bool
    """May what a rank sends to an all-gather be its part of what it receives? Where it may, nobody promises that this
    part is written when it is sent from elsewhere."""

    def begin(self) -> None:  # noqa: B027
        """A sum begins."""

    @abstractmethod
    def start_all_gather(self, got_MB: Tensor, mine_SB: Tensor, group: Group) -> Pending:
        """[S, B] of each rank to [N * S, B], beside what follows on the device until `wait` of what is returned.

        What is received and sent must live until then, and where it is sent again until `end`.
        """

    @abstractmethod
    def start_all_to_all(self, got_MB: Tensor, sent_MB: Tensor, group: Group) -> Pending:
        """[N * S, B]: block i goes to rank i, and comes from rank i; else as `start_all_gather`."""

    def end(self) -> None:  # noqa: B027
        """All of the sum's messages have been waited for."""


class Library(Carrier):
    """The backend's own collectives."""

    algorithms = ("gather", "two_shot")

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.gathers_in_place = backend.gathers_in_place

    def start_all_gather(self, got_MB: Tensor, mine_SB: Tensor, group: Group) -> Pending:
        """As the library does."""
        return self._backend.start_all_gather(got_MB, mine_SB, group)

    def start_all_to_all(self, got_MB: Tensor, sent_MB: Tensor, group: Group) -> Pending:
        """As the library does."""
        return self._backend.start_all_to_all(got_MB, sent_MB, group)


__all__ = ["Carrier", "Library"]
