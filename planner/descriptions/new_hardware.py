"""A hardware file from what a data sheet gives; what it does not give is taken from the nearest preset, as `assumed`.

Two presets lend: one whose devices are most like these, and one whose links are. Nearest is first who shares the
vendor (for links: the kind of link), then whose figures differ by the smallest factors. Links of PCIe are lent by the
preset of the same device, else by the one that stands for PCIe hosts (docs/decisions/pcie.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from ..strategy.vendors import BACKENDS
from ..strategy.yaml_file import flow_text, parse_yaml, read_mapping, scalar_text
from .base import Figure, build
from .hardware import HARDWARE_SCHEMA, Compute, Hardware, Link, Topology
from .loader import find, preset_names

_FAR = 100.0  # further than any figures are apart
_SAME = 1.08  # figures of one device are no further apart: GB and GiB differ by 1.074
_PCIE = "rtx-pro-6000-8"  # stands for PCIe hosts, whatever their devices
_NEAREST, _NAMED = "the nearest preset", "as --like says"
_USUAL = "whose links stand for PCIe where the device has no preset"
_REACH = "where devices read each other's memory"
_RATES = ("fp8_tflops", "int8_tops", "fp32_tflops")


@dataclass(frozen=True)
class DataSheet:
    """What is known of a machine. Bandwidths are of one device, in one direction.

    peer_access   devices of a node read each other's memory; None: not said
    rates         further dense rates by field of Compute; None for a type that the device does not compute in
    as_given      how a figure was typed, by field, where that was in another unit
    source        where the figures come from
    """

    name: str
    vendor: str
    memory_gb: float
    memory_gb_per_s: float
    bf16_tflops: float
    topology: Topology
    link_gb_per_s: float
    devices_per_node: int
    num_nodes: int = 1
    node_link_gb_per_s: float | None = None
    peer_access: bool | None = None
    rates: dict[str, float | None] = field(default_factory=dict)
    as_given: dict[str, str] = field(default_factory=dict)
    source: str = "data sheet"
    description: str | None = None


@dataclass(frozen=True)
class Lender:
    """The presets whose figures stand in for what a data sheet does not give; `device_is` and `link_is` say why."""

    device: Hardware
    link: Hardware
    node_link: Hardware
    link_is: str = _NEAREST
    device_is: str = _NEAREST


@dataclass(frozen=True)
class Assumed:
    """A value that no data sheet gave, and the preset that lent it, or None; `otherwise` is what to say, and where."""

    value: float | bool
    lent_by: str | None
    times_bf16: float | None = None
    otherwise: str | None = None


@dataclass(frozen=True)
class NewHardware:
    """A complete file: its text, what it describes, who lent, and what is assumed by field."""

    text: str
    hardware: Hardware
    lender: Lender
    assumed: dict[str, Assumed]


def lender_of(sheet: DataSheet, like: str | None = None) -> Lender:
    """The presets nearest to a machine, or the one that `like` names, as far as it has such links."""
    machines = [_preset(name) for name in ([like] if like is not None else preset_names("hardware"))]
    everyone = machines if like is None else [*machines, *(_preset(name) for name in preset_names("hardware"))]

    def device(hardware: Hardware) -> float:
        return _FAR * (hardware.vendor != sheet.vendor) + sum(
            _apart(ours, theirs.value)
            for ours, theirs in (
                (sheet.bf16_tflops, hardware.compute.bf16_tflops),
                (sheet.memory_gb_per_s, hardware.memory.bandwidth_gb_per_s),
                (sheet.memory_gb, hardware.memory.capacity_gb),
            )
        )

    def link(hardware: Hardware) -> float:
        found = hardware.links.intra_node
        strange = 2 * _FAR * (found.topology != sheet.topology) + _FAR * (hardware.vendor != sheet.vendor)
        # Of links alike the one whose efficiency was measured there.
        borrowed = 0.01 * (found.efficiency.provenance not in ("measured", "table"))
        return strange + borrowed + _apart(sheet.link_gb_per_s, found.bandwidth_gb_per_s.value)

    joined = [hardware for hardware in everyone if hardware.links.inter_node is not None]

    def nearest(of: Iterable[Hardware], distance: Callable[[Hardware], float]) -> Hardware:
        """Of equals the one with about as many devices."""
        return min(of, key=lambda h: (distance(h), _apart(sheet.devices_per_node, h.devices_per_node), h.name))

    why = _NEAREST if like is None else _NAMED
    lender = Lender(nearest(machines, device), nearest(machines, link), nearest(joined, device), why, why)
    named = like is not None and lender.link.links.intra_node.topology == "pcie"
    if sheet.topology != "pcie" or named:
        return lender
    # PCIe hosts differ by more than their data sheets do: that of the L40S tables lends to L40S alone.
    same = [hardware for hardware in everyone if _is_same(sheet, hardware)]
    if same:
        return replace(lender, link=nearest(same, device), link_is=_NEAREST)
    return replace(lender, link=_preset(_PCIE), link_is=_USUAL)


def _preset(name: str) -> Hardware:
    path = find(name, "hardware", None, "--like")
    return build(Hardware, read_mapping(path), str(path))


def _apart(one: float, other: float) -> float:
    return abs(math.log(one / other))


def _is_same(sheet: DataSheet, hardware: Hardware) -> bool:
    """True for a preset of the same device behind the same link."""
    link = hardware.links.intra_node
    figures = (
        (sheet.bf16_tflops, hardware.compute.bf16_tflops),
        (sheet.memory_gb_per_s, hardware.memory.bandwidth_gb_per_s),
        (sheet.memory_gb, hardware.memory.capacity_gb),
        (sheet.link_gb_per_s, link.bandwidth_gb_per_s),
    )
    alike = (hardware.vendor, link.topology) == (sheet.vendor, sheet.topology)
    return alike and all(_apart(ours, theirs.value) <= math.log(_SAME) for ours, theirs in figures)


def new_hardware(sheet: DataSheet, lender: Lender) -> NewHardware:
    """The file that a data sheet makes. It was read back, so that every command takes it."""
    writer = _Writer(sheet, lender.device_is)
    text = "\n".join([*_head(sheet), *writer.compute(lender.device), *writer.memory(lender.device),
                      *writer.links(lender), ""])  # fmt: skip
    return NewHardware(text, build(Hardware, parse_yaml(text), sheet.name), lender, writer.assumed)


def _head(sheet: DataSheet) -> list[str]:
    nodes = f"{sheet.num_nodes} nodes of " if sheet.num_nodes > 1 else ""
    backend = next(name for name, record in BACKENDS.items() if record.vendor == sheet.vendor)
    about = sheet.description or (
        f"{nodes}{sheet.devices_per_node} x {sheet.name} {sheet.memory_gb:g} GB, {sheet.topology.replace('_', ' ')}"
    )
    return [
        "# Made by `commplan init hardware`. Rates are dense; the bandwidth of a link is that of one device, in one",
        "# direction, all its links together; GB are 10^9 bytes. What is `assumed` is another machine's: replace it by",
        "# what you measure (`commplan calibrate` measures collectives), and say so in provenance and source.",
        f"schema: {HARDWARE_SCHEMA}",
        f"name: {scalar_text(sheet.name)}",
        f"description: {scalar_text(about)}",
        f"vendor: {sheet.vendor}",
        f"devices_per_node: {sheet.devices_per_node}",
        *([f"num_nodes: {sheet.num_nodes}"] if sheet.num_nodes > 1 else []),
        f"backend: {backend}",
    ]


class _Writer:
    """Lines of a file; notes which of its figures are assumed, and whose they are."""

    def __init__(self, sheet: DataSheet, device_is: str) -> None:
        self.sheet, self._device_is = sheet, device_is
        self.assumed: dict[str, Assumed] = {}

    def compute(self, like: Hardware) -> list[str]:
        lines = ["compute:", self._given("  ", "bf16_tflops", self.sheet.bf16_tflops)]
        for name in _RATES:
            if name in self.sheet.rates:
                given = self.sheet.rates[name]
                lines += [] if given is None else [self._given("  ", name, given)]
            elif (lent := self._rate(name, like)) is not None:
                lines.append(lent)
        for name in ("gemm_efficiency", "attention_efficiency", "gemm_tile_rows"):
            lines.append(self._lent("  ", "compute", name, getattr(like.compute, name), like, self._device_is))
        return lines

    def _rate(self, name: str, like: Hardware) -> str | None:
        """A rate of another type, in the lender's proportion to bf16."""
        theirs: Figure | None = getattr(like.compute, name)
        if theirs is None:
            return None
        times = theirs.value / like.compute.bf16_tflops.value
        value = float(f"{times * self.sheet.bf16_tflops:.4g}")
        self.assumed[f"compute.{name}"] = Assumed(value, like.name, float(f"{times:.3g}"))
        why = f"{times:.3g} times the bf16 rate, as on {like.name}; delete the line if the device has no such rate"
        return f"  {name}: {_figure(value, 'assumed', why)}"

    def memory(self, like: Hardware) -> list[str]:
        lines = [
            "memory:",
            self._given("  ", "capacity_gb", self.sheet.memory_gb, "memory_gb"),
            self._given("  ", "bandwidth_gb_per_s", self.sheet.memory_gb_per_s, "memory_gb_per_s"),
        ]
        for name in ("bandwidth_efficiency", "kernel_overhead_us"):
            lines.append(self._lent("  ", "memory", name, getattr(like.memory, name), like, self._device_is))
        return lines

    def links(self, lender: Lender) -> list[str]:
        sheet, rate, why = self.sheet, self.sheet.link_gb_per_s, lender.link_is
        lines = ["links:", *self._link("intra_node", sheet.topology, rate, "link_gb_per_s", lender.link, why)]
        lines += [*self._peer_access(lender.link), *self._said("multicast", lender.link)]
        if sheet.node_link_gb_per_s is not None:
            other = lender.node_link.links.inter_node
            assert other is not None
            rate = sheet.node_link_gb_per_s
            lines += self._link("inter_node", other.topology, rate, "node_link_gb_per_s", lender.node_link)
        return lines

    def _peer_access(self, like: Hardware) -> list[str]:
        """What the user says. Over PCIe it depends on driver and host, so no preset says it."""
        if self.sheet.peer_access is not None:
            return [f"    peer_access: {scalar_text(self.sheet.peer_access)} # given"]
        if self.sheet.topology != "pcie":
            return self._said("peer_access", like)
        self.assumed["links.intra_node.peer_access"] = Assumed(False, None, otherwise=f"--peer-access {_REACH}")
        return [f"    peer_access: false # assumed; true {_REACH} (`--peer-access` of the command)"]

    def _said(self, name: str, like: Hardware) -> list[str]:
        """A field of a link that says yes or no, as on a machine with such a link."""
        link = like.links.intra_node
        said: bool | None = getattr(link, name) if link.topology == self.sheet.topology else None
        if said is None:
            return []
        self.assumed[f"links.intra_node.{name}"] = Assumed(said, like.name)
        return [f"    {name}: {scalar_text(said)} # assumed: as on {like.name}"]

    def _link(
        self, level: str, topology: str, rate: float, given_as: str, like: Hardware, why: str = _NEAREST
    ) -> list[str]:
        link: Link = getattr(like.links, level)
        return [
            f"  {level}:",
            f"    topology: {topology}",
            self._given("    ", "bandwidth_gb_per_s", rate, given_as),
            *(
                self._lent("    ", f"links.{level}", name, getattr(link, name), like, why)
                for name in ("efficiency", "latency_us", "collective_overhead_us")
            ),
            *self._shares(level, link, like, why),
        ]

    def _shares(self, level: str, link: Link, like: Hardware, why: str) -> list[str]:
        """What groups of each size have of a shared tree, where the like machine says so."""
        shares = sorted((link.share_by_ranks or {}).items())
        lines = [
            self._lent("      ", f"links.{level}.share_by_ranks", str(size), share, like, why) for size, share in shares
        ]
        return ["    share_by_ranks:", *lines] if lines else []

    def _given(self, indent: str, name: str, value: float, given_as: str | None = None) -> str:
        typed = self.sheet.as_given.get(given_as or name)
        source = f"{self.sheet.source}: {typed}" if typed is not None else self.sheet.source
        return f"{indent}{name}: {_figure(value, 'datasheet', source)}"

    def _lent(self, indent: str, path: str, name: str, theirs: Figure, like: Hardware, why: str) -> str:
        self.assumed[f"{path}.{name}"] = Assumed(theirs.value, like.name)
        return f"{indent}{name}: {_figure(theirs.value, 'assumed', f'as on {like.name}, {why}')}"


def _figure(value: float, provenance: str, source: str) -> str:
    number = int(value) if float(value).is_integer() else value
    return flow_text({"value": number, "provenance": provenance, "source": source})


def suspicions(sheet: DataSheet, lender: Lender) -> list[str]:
    """What looks like a figure of another kind: both directions of a link, the link's figure as the memory's."""
    found = []
    near = lender.device
    link = near.links.intra_node
    theirs = link.bandwidth_gb_per_s.value
    if (near.vendor, link.topology) == (sheet.vendor, sheet.topology) and abs(sheet.link_gb_per_s / theirs - 2) < 0.05:
        sums = "data sheets often add both directions; one direction is meant"
        if sheet.topology == "pcie":
            sums = f"right one generation of PCIe later, but {sums}"
        found.append(
            f"links of {sheet.link_gb_per_s:g} GB/s are twice those of {near.name}, whose devices are much like these: "
            f"{sums}"
        )
    for name, ours, preset, larger in (
        ("memory bandwidth", sheet.memory_gb_per_s, near.memory.bandwidth_gb_per_s.value, "GB/s, not in TB/s"),
        ("rate in bf16", sheet.bf16_tflops, near.compute.bf16_tflops.value, "TFLOP/s, not in PFLOP/s"),
        ("memory", sheet.memory_gb, near.memory.capacity_gb.value, "GB, not in TB"),
    ):
        if ours < preset / 20:
            found.append(
                f"the {name} is {ours:g}, and {near.name}, the nearest preset, has {preset:g}: is it in {larger}?"
            )
    if sheet.link_gb_per_s > sheet.memory_gb_per_s:
        found.append("links are faster than memory: are the two bandwidths exchanged?")
    dense = near.compute.bf16_tflops.value
    if near.vendor == sheet.vendor and abs(sheet.bf16_tflops / dense - 2) < 0.02:
        found.append(
            f"{sheet.bf16_tflops:g} TFLOP/s are twice those of {near.name}: data sheets often print the rate with "
            "sparsity; the dense one is meant"
        )
    return found


assert set(_RATES) < set(Compute.model_fields)
