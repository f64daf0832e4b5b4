"""Where ranks sit: those of a stage spread evenly over as few nodes as hold them, stages one after another.

Servers start as many ranks on each node they use, so 12 ranks on nodes of 8 are 6 and 6, not 8 and 4. Stages that fit a
node share it while there is room; none lies across two nodes that another could have had to itself.
"""

from __future__ import annotations

from ..strategy.layout import Parallelism
from .hardware import Hardware


def ranks_per_node(tp: int, hardware: Hardware) -> int | None:
    """Ranks of a stage on each of its nodes; None where no number of nodes takes the same number of them each."""
    fewest = -(-tp // hardware.devices_per_node)
    nodes = next((n for n in range(fewest, hardware.num_nodes + 1) if tp % n == 0), None)
    return None if nodes is None else tp // nodes


def stages_per_node(tp: int, hardware: Hardware) -> int:
    """Whole stages that a node holds; 0 where a stage spans several nodes."""
    return 0 if spans_nodes(tp, hardware) else hardware.devices_per_node // tp


def spans_nodes(tp: int, hardware: Hardware) -> bool:
    """Do the ranks of one stage sit on several nodes?"""
    return ranks_per_node(tp, hardware) != tp


def nodes_needed(p: Parallelism, hardware: Hardware) -> int:
    """Nodes that all stages take; the ranks of a stage must spread evenly."""
    share = stages_per_node(p.tp, hardware)
    if share:
        return -(-p.pp // share)
    inside = ranks_per_node(p.tp, hardware)
    assert inside is not None
    return p.pp * (p.tp // inside)


def stage_boundaries(p: Parallelism, hardware: Hardware) -> tuple[int, int]:
    """How many of the hand-overs from stage to stage stay inside a node, and how many go to another."""
    share = stages_per_node(p.tp, hardware)
    between = p.pp - 1 if not share else -(-p.pp // share) - 1
    return p.pp - 1 - between, between
