"""Sums beside which weights are asked for, in Triton's interpreter: what would be asked for is noted instead."""

from __future__ import annotations

import os
from typing import Any

import torch

from ...peer_cases import EPS
from .emulated_peers import emulated


def _number(scalar: Any) -> int:
    return int(scalar.handle.data.item())


def sums_beside(folder: str) -> list[bool]:
    """Whether sums beside which weights are asked for have the bits of sums without, in turn over many calls."""
    rank, _, peers = emulated(folder)
    from commplan.runtime.kernels import one_shot

    asked: list[tuple[int, ...]] = []
    one_shot.ask_ahead = lambda _, rows, *rest: asked.append((_number(rows), _number(rest[2])))
    peers._bytes_ahead = 64 * 128
    generator, found, weights = torch.Generator().manual_seed(rank), [], torch.empty(300, 512, dtype=torch.bfloat16)
    calls: tuple[Any, ...] = (
        peers.all_reduce_norm,
        lambda *given: peers.all_reduce_norm(*given, "two_shot"),
        lambda x, *given: peers.int8_all_reduce_norm(x, "gather", *given),
    )
    for rows in (1, 3, 1, 2):
        x, residual = (torch.randn(rows, 64, generator=generator).bfloat16() for _ in range(2))
        gain = torch.ones(64).bfloat16()
        for call in calls:
            wanted = call(x, residual, gain, EPS)
            for _ in range(2):
                peers.read_ahead(weights)
                found.append(all(map(torch.equal, call(x, residual, gain, EPS), wanted)))
    peers.check()
    found.append(asked == [(300, number) for number in range(3)] * (2 * 2 * 4))
    return found


PLACE = 1 << 40, 3 << 30, 256
"""Where the weights of `asked_for` begin, how far apart their rows are and what is asked for of each, in bytes."""


def asked_for(rows: int, programs: int, threads: int) -> list[tuple[int, int]]:
    """(address, bytes) of all that some programs ask for."""
    os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    import triton.language as tl

    from commplan.runtime.kernels.ask_ahead import ask_ahead

    found: list[tuple[int, int]] = []

    def note(assembly: str, constraints: str, given: Any, **_: Any) -> None:
        assert "[$1], $2" in assembly and constraints == "=r,l,r"
        addresses, size = given
        found.extend((address, int(size.handle.data.item())) for address in addresses.handle.data.tolist())

    tl.inline_asm_elementwise = note
    for number in range(programs):
        ask_ahead[(1,)](*PLACE[:1], rows, *PLACE[1:], number, programs, threads)
    return found
