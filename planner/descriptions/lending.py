"""Tables that a machine without tables of its own borrows from the nearest one that has some.

A message takes a start, which depends on the library and the kind of link, and then its bytes over the link's rate. So
a table of the same kind of link holds for another bandwidth at other sizes: what takes a link of B twice as long as one
of 2B is twice the bytes. A borrowed table is read at bytes * (lender's bandwidth / this machine's), it stands behind
every table of the machine itself, and says in its source whose it is. Only collectives are lent: what a device computes
by itself depends on the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib.resources import files

from pydantic import Field

from ..strategy.layout import Parallelism
from ..strategy.yaml_file import read_mapping
from .base import Positive, PositiveInt, Spec, Text, build
from .hardware import Hardware, Topology

_FARTHEST = 4.0  # times the bandwidth, up or down: beyond that a start is no longer the same


class Lender(Spec):
    """A calibration that may be borrowed: of which link, and over which numbers of ranks it has tables.

    `holds` sorts lenders: of each kind the nearest one lends. `peer_access: false` where devices reach each other
    through the host.
    """

    calibration: Text
    machine: Text
    holds: Text
    vendor: Text
    topology: Topology
    bandwidth_gb_per_s: Positive
    ranks: tuple[PositiveInt, ...]
    peer_access: bool = True


class Lenders(Spec):
    """The list of them, `configs/lenders.yaml`."""

    schema_: Text = Field(alias="schema")
    lenders: tuple[Lender, ...]


def lenders_of(hardware: Hardware, parallelism: Parallelism) -> Iterator[tuple[Lender, float]]:
    """The nearest lender of each kind, and by what its message sizes are multiplied; none that it uses anyway."""
    path = str(files("commplan.configs") / "lenders.yaml")
    link, used = hardware.links.intra_node, {use.file for use in hardware.calibrations}
    groups = {parallelism.tp, parallelism.attn_tp, parallelism.attn_dp} - {1}
    nearest: dict[str, tuple[float, Lender]] = {}
    for lender in build(Lenders, read_mapping(path), path).lenders:
        ratio = link.bandwidth_gb_per_s.value / lender.bandwidth_gb_per_s
        distance = abs(math.log(ratio))
        alike = (lender.vendor, lender.topology) == (hardware.vendor, link.topology)
        alike = alike and lender.peer_access == link.has_peer_access
        if not alike or distance > math.log(_FARTHEST) or not groups & set(lender.ranks):
            continue
        if lender.holds not in nearest or distance < nearest[lender.holds][0]:
            nearest[lender.holds] = distance, lender
    for _, lender in nearest.values():
        if lender.calibration not in used:
            yield lender, link.bandwidth_gb_per_s.value / lender.bandwidth_gb_per_s
