"""The kernels as custom ops of torch, so that torch.compile leaves them whole.

A group's kernels are known to a graph by a name (a number would become a symbol of the graph). Ops that depend on
nothing of each other would have no order; in a model every collective depends on the one before.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
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


def new_rows(rows: int, rows_out: int, width: int) -> Callable[[Tensor], Tensor]:
    """Makes the memory that a result of calls of one shape goes to, by the cheapest way of torch that there is.

    One allocation for two results would be cut into views, each dearer than an allocation.
    """
    if rows == rows_out:
        return torch.empty_like
    shape, stride = (rows_out, width), (width, 1)
    return lambda x: x.new_empty_strided(shape, stride)


def _rows(x: Tensor, handle: str, op: str) -> Tensor:
    return _PEERS[handle].rows_now(op, x)


def _normed_rows(
    x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, handle: str, op: str
) -> tuple[Tensor, Tensor]:
    return _PEERS[handle].normed_rows_now(op, x, residual, weight, eps)


def _empty(x: Tensor, handle: str, op: str) -> Tensor:
    """The shape of an op's result."""
    return x.new_empty(_PEERS[handle].rows_out(op, x.shape[0]), x.shape[1])


# Ops of a library: `torch.library.custom_op` puts Python of its own around each for autograd, which there is none of.
_LIBRARY = torch.library.Library("commplan", "FRAGMENT")  # type: ignore[no-untyped-call]
_OPS = (
    ("peer_rows", "(Tensor x, str handle, str op) -> Tensor", _rows),
    (
        "peer_normed_rows",
        "(Tensor x, Tensor? residual, Tensor weight, float eps, str handle, str op) -> (Tensor, Tensor)",
        _normed_rows,
    ),
)
for _name, _signature, _run in _OPS:
    _LIBRARY.define(_name + _signature, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
    for _key in ("CPU", "CUDA"):  # CPU: where kernels are emulated
        _LIBRARY.impl(_name, _run, _key)  # type: ignore[no-untyped-call]


@torch.library.register_fake("commplan::peer_rows", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _fake_rows(x: Tensor, handle: str, op: str) -> Tensor:
    return _empty(x, handle, op)


@torch.library.register_fake("commplan::peer_normed_rows", lib=_LIBRARY)  # type: ignore[untyped-decorator]
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


rows = torch.ops.commplan.peer_rows.default
normed_rows = torch.ops.commplan.peer_normed_rows.default
