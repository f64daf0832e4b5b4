"""Kernels that are a whole collective in one launch, by formula. N ranks, M bytes of the message, B a rank's link.

  one_shot   1 step    (N-1) * M
  two_shot   2 steps   2 (N-1)/N * M
  multimem   2 steps   M

  time = launch + rank * (N - 2) + norm + steps * link latency + bytes / (B * bandwidth)

A quantised sum beside that: a floor, a time by row and step, and passes over the message in memory.

B is what the machine's library reaches over these ranks, by its table where there is one, and a kernel's bandwidth a
multiple of that: what a shared tree or an old switch takes from one, it takes from both. The figures stand in
planner/executors/launches.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..executors.launches import OneLaunch
from ..strategy.op_kinds import COLLECTIVES
from ..strategy.words import Provenance


class Ranks(NamedTuple):
    """Who takes part: `size` ranks of one node, bytes per us that reach one of them, us of a step to a peer.

    memory_rate  bytes per us of a device's memory
    provenance  of a time by these: assumed where the rate is, since no table says what the link reaches
    """

    size: int
    rate: float
    hop_us: float
    provenance: Provenance = "formula"
    memory_rate: float = math.inf


def one_launch_us(op: str, figures: OneLaunch, ranks: Ranks, message_bytes: float) -> tuple[float, float]:
    """(time that grows with the size, fixed cost) of a collective."""
    if COLLECTIVES[op].halves:
        return all_reduce_us(figures, ranks, message_bytes)
    return exchange_us(figures, ranks, 1, (ranks.size - 1) / ranks.size * message_bytes)


def all_reduce_us(figures: OneLaunch, ranks: Ranks, message_bytes: float, width: int = 0) -> tuple[float, float]:
    """The same of a sum, by the cheaper algorithm; with the norm of rows of `width` inside."""
    size = ranks.size
    ways = {
        "one_shot": (1, (size - 1) * message_bytes),
        "two_shot": (2, 2 * (size - 1) / size * message_bytes),
        "multimem": (2, message_bytes),
    }
    return min((exchange_us(figures, ranks, *ways[each], width) for each in figures.algorithms), key=sum)


def exchange_us(figures: OneLaunch, ranks: Ranks, steps: int, received: float, width: int = 0) -> tuple[float, float]:
    """The same of any exchange: so many steps, in which a rank receives so many bytes."""
    fixed = figures.launch_us + figures.rank_us * (ranks.size - 2) + steps * ranks.hop_us
    return received / (ranks.rate * figures.bandwidth), fixed + figures.norm_us * width / 1024
