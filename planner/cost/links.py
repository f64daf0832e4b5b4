"""Formulas for collectives where no table stands: by algorithm and topology.

N ranks, M bytes of the whole buffer, B the bandwidth a rank gets inside its group. A ring and a direct exchange move
the same bytes; they differ in the number of steps. Which of the two a library takes stands in its record: the smallest
all-reduce of NCCL over 2, 4, 8 H200s takes 6.0, 9.5, 16.0 us (NVIDIA AIConfigurator 0.12), a step more for every rank.

  all_gather, reduce_scatter               (N-1)/N * M / B      1 step (direct) or N-1 (ring)
  all_to_all                               (N-1)/N * M / B      1 step
  all_reduce, two-shot or ring             2 (N-1)/N * M / B    2 steps or 2 (N-1)
  all_reduce, one-shot (direct alone)      (N-1) * M / B        1 step

B is the device's bandwidth on a switch. A full mesh splits it over its links, so that a group of g out of n devices
has (g-1)/(n-1) of it: a pair on an 8-way mesh has one link. Across nodes a collective is done level by level.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..descriptions.hardware import Hardware, Link
from ..descriptions.placement import ranks_per_node
from ..strategy.layout import Parallelism
from ..strategy.op_kinds import ALL_TO_ALL, COLLECTIVES
from ..strategy.words import GroupName


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the ranks of a group sit: `per_node` of them in each of `num_nodes` nodes."""

    per_node: int
    num_nodes: int

    @property
    def size(self) -> int:
        """Ranks of the group."""
        return self.per_node * self.num_nodes


def placement(group: GroupName, p: Parallelism, hardware: Hardware) -> Placement:
    """Ranks are numbered node by node, and a DP group is a run of attn_tp neighbours; the dp axis strides over it."""
    size, stride = p.group_size(group), p.attn_tp if group == "attn_dp" else 1
    inside = ranks_per_node(p.tp, hardware)
    assert inside is not None  # checked when the deployment was read
    per_node = max(1, min(size, inside // stride))
    return Placement(per_node, size // per_node)


def bandwidth_bytes_per_us(link: Link, group_size: int, devices: int) -> float:
    """What a rank receives per microsecond inside a group of this size, at the efficiency collectives reach."""
    share = (group_size - 1) / (devices - 1) if link.topology == "full_mesh" and devices > 1 else 1.0
    return link.bandwidth_gb_per_s.value * link.efficiency_of(group_size) * share * 1e3


def one_level_us(
    op: str, size: int, message_bytes: float, link: Link, devices: int, rings: bool
) -> tuple[float, float]:
    """(time that grows with the size, fixed cost) of a collective over `size` ranks on one level."""
    if size == 1:
        return 0.0, 0.0
    rate = bandwidth_bytes_per_us(link, size, devices)
    hop, call = link.latency_us.value, link.collective_overhead_us.value
    collective, through = COLLECTIVES[op], (size - 1) / size * message_bytes / rate
    if rings and op != ALL_TO_ALL.name:
        return collective.passes * through, call + collective.passes * (size - 1) * hop
    if collective.halves:
        one_shot = (size - 1) * message_bytes / rate, call + hop
        two_shot = 2 * through, call + 2 * hop
        return min(one_shot, two_shot, key=sum)
    return through, call + hop


def hierarchical_us(
    op: str,
    where: Placement,
    message_bytes: float,
    hardware: Hardware,
    rings: bool,
    intra: tuple[float, float] | None = None,
) -> tuple[float, float]:
    """(time that grows with the size, fixed cost) across nodes: inside the nodes first, between them with the shard.

    `intra` replaces the formula inside a node where a table is known.
    """
    links, nodes, inside = hardware.links, where.num_nodes, where.per_node
    inner = intra or one_level_us(op, inside, message_bytes, links.intra_node, hardware.devices_per_node, rings)
    if nodes == 1:
        return inner
    assert links.inter_node is not None
    outer = one_level_us(op, nodes, message_bytes / inside, links.inter_node, hardware.num_nodes, rings)
    return inner[0] + outer[0], inner[1] + outer[1]
