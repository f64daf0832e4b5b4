"""A machine: its devices, its links, and the tables that were measured on it or on one like it."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Annotated, ClassVar, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
)

from ..executors.limits import CAPABILITY
from ..strategy.vendors import BACKENDS, VENDORS
from .base import FieldError, Figure, FractionFigure, GrownSpec, OneOf, PositiveInt, Spec, Text

Capability = Annotated[
    str, BeforeValidator(lambda value: f"{value}" if isinstance(value, float) else value), Field(pattern=CAPABILITY)
]
"""As in `9.0`; YAML reads it as a number where it is not quoted."""
Topology = Literal["switch", "full_mesh", "pcie", "loopback"]
HARDWARE_SCHEMA = "commplan/hardware/v1"


class Compute(Spec):
    """What one device computes. Rates are dense; a missing rate means the device lacks the data type.

    gemm_efficiency       fraction of the rate that a large GEMM reaches
    attention_efficiency  the same for the attention core in prefill
    gemm_tile_rows        a GEMM of fewer rows costs as much arithmetic as one of these many
    """

    bf16_tflops: Figure
    fp8_tflops: Figure | None = None
    int8_tops: Figure | None = None
    fp32_tflops: Figure | None = None
    gemm_efficiency: FractionFigure
    attention_efficiency: FractionFigure
    gemm_tile_rows: Figure


class Memory(Spec):
    """Device memory, and the fixed cost of a kernel that passes over it.

    bandwidth_efficiency  fraction that an elementwise or reduction kernel reaches
    kernel_overhead_us    launch and ramp of one kernel, whatever its size
    """

    capacity_gb: Figure
    bandwidth_gb_per_s: Figure
    bandwidth_efficiency: FractionFigure
    kernel_overhead_us: Figure


class Link(GrownSpec):
    """How the devices of one level (a node, or the nodes of a cluster) are joined.

    switch     every device reaches every other at its full bandwidth
    full_mesh  the bandwidth is split evenly over direct links to each of the other devices
    pcie       one shared tree: the bandwidth is what a device sees while all send
    loopback   processes of one host

    bandwidth_gb_per_s      per device, one direction, all its links together
    efficiency              fraction that collectives reach
    share_by_ranks          times that fraction in groups of so many ranks, where they share one tree; between two of
                            them by their logarithms, beyond them as at the nearest
    latency_us              one step from a device to a peer
    collective_overhead_us  fixed cost of one library call
    peer_access             devices read and write each other's memory; left out: yes but for pcie and loopback
    multicast               the switch adds and multiplies (NVLS); left out: no
    """

    LATER: ClassVar = ("share_by_ranks", "peer_access", "multicast")

    topology: Topology
    bandwidth_gb_per_s: Figure
    efficiency: FractionFigure
    latency_us: Figure
    collective_overhead_us: Figure
    share_by_ranks: dict[Annotated[int, Field(ge=2)], Figure] | None = None
    peer_access: bool | None = None
    multicast: bool | None = None

    def efficiency_of(self, ranks: int) -> float:
        """The fraction that collectives over so many ranks reach."""
        shares = {size: figure.value for size, figure in (self.share_by_ranks or {}).items()}
        return min(1.0, self.efficiency.value * share_of(shares, ranks))

    @property
    def has_peer_access(self) -> bool:
        """What the field says, else what is usual for the topology."""
        return self.topology in ("switch", "full_mesh") if self.peer_access is None else self.peer_access

    @property
    def figures(self) -> tuple[str | float, ...]:
        """What decides times, without its sources."""
        numbers = (self.bandwidth_gb_per_s, self.efficiency, self.latency_us, self.collective_overhead_us)
        shares = (f"{size}: {figure.value}" for size, figure in sorted((self.share_by_ranks or {}).items()))
        return (self.topology, *(figure.value for figure in numbers), *shares)


def share_of(shares: Mapping[int, float], ranks: int) -> float:
    """The share of so many ranks, between known ones by their logarithms; 1 where none is known."""
    known = sorted(shares.items())
    if not known:
        return 1.0
    low, at_low = ([each for each in known if each[0] <= ranks] or known[:1])[-1]
    high, at_high = ([each for each in known if each[0] >= ranks] or known[-1:])[0]
    if low == high or not low < ranks < high:
        return at_low if ranks >= low else at_high
    return float(at_low * (at_high / at_low) ** (log(ranks / low) / log(high / low)))


class Links(Spec):
    """The levels of the machine."""

    intra_node: Link
    inter_node: Link | None = None


class CalibrationUse(Spec):
    """A calibration this machine uses; `transferred_because` when another device's table stands in."""

    file: Text
    transferred_because: Text | None = None


class Hardware(GrownSpec):
    """One kind of machine, as a deployment names it."""

    LATER: ClassVar = ("compute_capability",)

    schema_: Literal["commplan/hardware/v1"] = Field(alias="schema")
    name: Text
    description: Text
    vendor: Annotated[str, OneOf(VENDORS)]
    devices_per_node: PositiveInt
    num_nodes: PositiveInt = 1
    backend: Annotated[str, OneOf(BACKENDS)]
    compute_capability: Capability | None = None  # of NVIDIA devices; limits of servers go by it
    compute: Compute
    memory: Memory
    links: Links
    calibrations: tuple[CalibrationUse, ...] = ()

    @field_validator("links")
    @classmethod
    def _nodes_are_joined(cls, links: Links, read: ValidationInfo) -> Links:
        nodes = read.data.get("num_nodes", 1)
        if nodes > 1 and links.inter_node is None:
            raise FieldError(
                "inter_node",
                f"is missing; num_nodes is {nodes}, so it must say how the nodes are joined",
                kind="missing_key",
            )
        return links

    @property
    def num_devices(self) -> int:
        """Devices of the whole machine."""
        return self.devices_per_node * self.num_nodes
