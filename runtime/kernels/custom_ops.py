"""The kernels as custom ops of torch, so that torch.compile leaves them whole.

A group's kernels are known to a graph by a name (a number would become a symbol of the graph). Ops that depend on
nothing of each other would have no order; in a model every collective depends on the one before.
"""

from __future__ import annotations

import itertools
from typing import Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor


class Runs(Protocol):
    """What the custom ops ask of a group's kernels."""

    def rows_out(self, op: str, rows: int) -> int:
        """Rows that come out of an op."""

    def rows_now(self, op: str, x: Tensor) -> Tensor:
        """One op."""

    def normed_rows_now(
        self, op: str, x: Tensor, residual: Tensor | None, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """One op with the residual add and the norm that follow: (normed, total)."""


_PEERS: WeakValueDictionary[str, Runs] = WeakValueDictionary()
_NUMBERS = itertools.count(1)


def register(peers: Runs) -> str:
    """A name for a group's kernels."""
    handle = f"peers {next(_NUMBERS)}"
    _PEERS[handle] = peers
    return handle


def forget(handle: str) -> None:
    """The name stands for nothing any more."""
    _PEERS.pop(handle, None)


def new_rows(x: Tensor, rows: int) -> Tensor:
    """Where a result goes. One allocation for two results would be cut into views, each dearer than an allocation."""
    return torch.empty_like(x) if x.shape[0] == rows else x.new_empty((rows, x.shape[1]))


def _rows(x: Tensor, handle: str, op: str) -> Tensor:
    return _PEERS[handle].rows_now(op, x)


def _normed_rows(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, handle: str, op: str
) -> tuple[Tensor, Tensor]:
    return _PEERS[handle].normed_rows_now(op, x, residual, weight, eps)


def _empty(x: Tensor, handle: str, op: str) -> Tensor:
    """The shape of an op's result."""
    return x.new_empty(_PEERS[handle].rows_out(op, x.shape[0]), x.shape[1])


rows = torch.library.custom_op("commplan::peer_rows", _rows, mutates_args=())
normed_rows = torch.library.custom_op("commplan::peer_normed_rows", _normed_rows, mutates_args=())


@rows.register_fake
def _fake_rows(x: Tensor, handle: str, op: str) -> Tensor:
    return _empty(x, handle, op)


@normed_rows.register_fake
def _fake_normed_rows(
    x: Tensor,
    residual: Tensor | None,  # noqa: ARG001
    weight: Tensor,  # noqa: ARG001
    eps: float,  # noqa: ARG001
    handle: str,
    op: str,
) -> tuple[Tensor, Tensor]:
    out = _empty(x, handle, op)
    return out, torch.empty_like(out)
