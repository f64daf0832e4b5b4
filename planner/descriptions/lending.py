"""Tables that a machine without tables of its own borrows from the nearest one that has some.

A message takes a start, which depends on the library and the kind of link, and then its bytes over the link's rate. So
a table of the same kind of link holds for another bandwidth at other sizes: what takes a link of B twice as long as one
of 2B is twice the bytes. A borrowed table is read at bytes * (what collectives reach there / here), it stands behind
every table of the machine itself, and says in its source whose it is. Only collectives are lent: what a device computes
by itself depends on the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Annotated

from pydantic import Field

from ..strategy.layout import Parallelism
from ..strategy.yaml_file import read_mapping
from .base import Positive, PositiveInt, Spec, Text, build
from .hardware import Hardware, Topology, share_of

_FARTHEST = 4.0  # times the bandwidth, up or down: beyond that a start is no longer the same


class Lender(Spec):
    """A calibration that may be borrowed: of which link, and over which numbers of ranks it has tables.

    `holds` sorts lenders: of each kind the nearest one lends. `reached_gb_per_s` is bandwidth times efficiency, and
    `share_by_ranks` what groups have of it, as the machine's link says.
    """

    calibration: Text
    machine: Text
    holds: Text
    vendor: Text
    topology: Topology
    reached_gb_per_s: Positive
    share_by_ranks: dict[Annotated[int, Field(ge=2)], Positive] = Field(default_factory=dict)
    ranks: tuple[PositiveInt, ...]

    def reached_by(self, ranks: int) -> float:
        """GB/s that collectives over so many ranks reach there."""
        return self.reached_gb_per_s * share_of(self.share_by_ranks, ranks)


class Lenders(Spec):
    """The list of them, `configs/lending/lenders.yaml`."""

    schema_: Text = Field(alias="schema")
    lenders: tuple[Lender, ...]


def lenders_of(
    hardware: Hardware, parallelism: Parallelism, lends: Callable[[Lender], bool] = lambda _: True
) -> Iterator[tuple[Lender, float]]:
    """The nearest lender of each kind, and by what its message sizes are multiplied; none that it uses anyway.

    `lends` leaves out others.
    """
    path = str(files("commplan.configs") / "lending" / "lenders.yaml")
    link, used = hardware.links.intra_node, {use.file for use in hardware.calibrations}
    reached = link.bandwidth_gb_per_s.value * link.efficiency_of(parallelism.tp)
    groups = {parallelism.tp, parallelism.attn_tp, parallelism.attn_dp} - {1}
    nearest: dict[str, tuple[float, Lender]] = {}
    for lender in build(Lenders, read_mapping(path), path).lenders:
        ratio = reached / lender.reached_by(parallelism.tp)
        distance = abs(math.log(ratio))
        alike = (lender.vendor, lender.topology) == (hardware.vendor, link.topology)
        if not alike or not lends(lender) or distance > math.log(_FARTHEST) or not groups & set(lender.ranks):
            continue
        if lender.holds not in nearest or distance < nearest[lender.holds][0]:
            nearest[lender.holds] = distance, lender
    for _, lender in nearest.values():
        if lender.calibration not in used:
            yield lender, reached / lender.reached_by(parallelism.tp)
