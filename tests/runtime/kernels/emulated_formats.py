"""Every format of our kernels in Triton's interpreter, against float64; results are NaN before they are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...format_cases import How, errors_of, next_to_nothing, not_finite, one_channel
from ...peer_cases import Case
from .emulated_peers import emulated

Claims = list[tuple[str, Callable[..., Any], tuple[Any, ...]]]
"""(name, a function below, what it is given)."""


def in_turn(claims: Claims) -> dict[str, Any]:
    """What each function gives on this rank, by name: each has buffers of its own, and the process starts once."""
    return {name: function(*given) for name, function, given in claims}


def _peers(folder: str, as_one_of_many: bool = False) -> tuple[tuple[int, int], Any]:
    rank, world, peers = emulated(folder)
    from commplan.runtime.kernels import peer_kernels
    from commplan.runtime.kernels.row_launch import Tuning

    inner = peer_kernels.custom_ops.new_rows

    def poisoned(*shape: int) -> Any:
        new = inner(*shape)
        return lambda x: new(x).fill_(float("nan"))

    peer_kernels.custom_ops.new_rows = poisoned
    if as_one_of_many:
        peers.tune(Tuning(few=0))
    return (rank, world), peers


def _bytes(tensors: tuple[Tensor, ...]) -> bytes:
    return b"".join(t.view(torch.int16).numpy().tobytes() for t in tensors)


def sums(
    folder: str, hows: list[How], rows: int, width: int, dtype: torch.dtype, seed: int, as_one_of_many: bool
) -> list[tuple[float, bytes]]:
    """(the largest error, the bits of all results), by format."""
    ranks, peers = _peers(folder, as_one_of_many)
    case = Case(ranks, rows, width, dtype, "normal", seed, "cpu")
    found = [errors_of(peers, case, how) for how in hows]
    peers.check()
    return [(worst, _bytes(results)) for worst, results in found]


def beside_one_channel(folder: str, hows: list[How], width: int) -> list[tuple[float, float]]:
    """Errors outside and inside of a group with one large channel, by format."""
    ranks, peers = _peers(folder)
    return [one_channel(peers, ranks, 2, width, how, "cpu") for how in hows]


def bad_input(folder: str, hows: list[How], width: int, value: float) -> list[list[str]]:
    """What is wrong with a value that is not finite, and with next to nothing, by format."""
    ranks, peers = _peers(folder)
    return [
        not_finite(peers, ranks, width, how, value, "cpu") + next_to_nothing(peers, ranks, width, how, "cpu")
        for how in hows
    ]


def dead_peer(folder: str, hows: list[How]) -> tuple[bool, bool]:
    """Rank 1 never calls: whether rank 0 gets nothing but NaN, in the call that waits and in every later one."""
    (rank, _), peers = _peers(folder)
    if rank == 1:
        return True, True
    peers.looks = 30
    x = torch.ones(2, 64, dtype=torch.bfloat16)
    outs = [peers.quantized_all_reduce(x, *how) for how in hows]
    return bool(outs[0].isnan().all()), all(bool(out.isnan().all()) for out in outs)
