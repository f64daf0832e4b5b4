"""Kernels that are a whole collective in one launch, by formula. N ranks, M bytes of the message, B a rank's link.

  one_shot   1 step    (N-1) * M
  two_shot   2 steps   2 (N-1)/N * M
  multimem   2 steps   M

  time = launch + rank * (N - 2) + norm + steps * link latency + bytes / (B * efficiency)

The figures stand in planner/executors/launches.py.
"""

from __future__ import annotations

from ..descriptions.hardware import Hardware
from ..executors.launches import OneLaunch
from ..strategy.op_kinds import COLLECTIVES
from .links import bandwidth_bytes_per_us


def one_launch_us(
    op: str, figures: OneLaunch, size: int, message_bytes: float, hardware: Hardware
) -> tuple[float, float]:
    """(time that grows with the size, fixed cost) of a collective over `size` ranks of one node."""
    if COLLECTIVES[op].halves:
        return all_reduce_us(figures, size, message_bytes, hardware)
    return exchange_us(figures, size, 1, (size - 1) / size * message_bytes, hardware)


def all_reduce_us(
    figures: OneLaunch, size: int, message_bytes: float, hardware: Hardware, width: int = 0
) -> tuple[float, float]:
    """(time that grows with the size, fixed cost) of a sum over `size` ranks of one node, by the cheaper algorithm."""
    ways = {
        "one_shot": (1, (size - 1) * message_bytes),
        "two_shot": (2, 2 * (size - 1) / size * message_bytes),
        "multimem": (2, message_bytes),
    }
    return min((exchange_us(figures, size, *ways[each], hardware, width) for each in figures.algorithms), key=sum)


def exchange_us(
    figures: OneLaunch, size: int, steps: int, received: float, hardware: Hardware, width: int = 0
) -> tuple[float, float]:
    """The same of any exchange in one launch: so many steps, in which a rank receives so many bytes."""
    link = hardware.links.intra_node
    share = bandwidth_bytes_per_us(link, size, hardware.devices_per_node) / link.efficiency.value
    fixed = figures.launch_us + figures.rank_us * (size - 2) + steps * link.latency_us.value
    return received / (share * figures.efficiency), fixed + figures.norm_us * width / 1024
