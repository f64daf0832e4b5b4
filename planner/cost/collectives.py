"""Time of one collective: from a table of this machine, else a published one, else a formula.

A table knows nothing of a link that nobody has built. Where a link was given other figures than the machine's own, each
time that rests on a table is what it is on the machine's own link, times formula(this link) / formula(its own).
"""

from __future__ import annotations

from dataclasses import replace

from ..descriptions.hardware import Link
from ..descriptions.setup import Setup
from ..executors.launches import ONE_LAUNCH
from ..strategy.errors import InputError
from ..strategy.layout import Parallelism
from ..strategy.op_kinds import ALL_GATHER, COLLECTIVES, KINDS
from ..strategy.vendors import BACKENDS
from ..strategy.words import GroupName, Provenance
from .collective_tables import CollectiveTables, Found, Measured, Near, Source
from .estimate import Estimate, weakest
from .links import Placement, bandwidth_bytes_per_us, hierarchical_us, one_level_us, placement
from .one_kernel import formula_us, received_bytes
from .one_launch import Ranks, one_launch_us
from .terms import OneKernel

NOTE = "tables are scaled by the formula's ratio of the varied link to the machine's own"


class CollectiveCosts:
    """Prices of collectives on one machine under one parallelism."""

    def __init__(self, setup: Setup) -> None:
        self._hardware = setup.hardware
        self._parallelism: Parallelism = setup.parallelism
        self._tables, self._lent = CollectiveTables(setup.calibrations), CollectiveTables(setup.lent)
        self._reached: dict[int, Ranks] = {}
        self._sources: dict[tuple[str, str, str, GroupName], Source] = {}
        self._own: CollectiveCosts | None = None  # on the machine's own link, where this one is another
        if setup.measured_on is not None:
            self._own = CollectiveCosts(replace(setup, hardware=setup.measured_on, measured_on=None))

    def collective(self, op: str, impl: str, dtype: str, group: GroupName, message_bytes: float) -> Estimate:
        """One library collective over a group. `message_bytes` is the whole buffer; 0 bytes cost nothing."""
        source = self._source(op, impl, dtype, group)
        where, found, halves = source.where, source.found, source.halves
        if where.size == 1 or message_bytes <= 0:
            return Estimate(0.0, 0.0, 0.0, "formula", "nothing travels")
        wire = source.received * message_bytes
        if self._own is not None and (found or halves) and not (found and found.is_given):
            known = self._own.collective(op, impl, dtype, group, message_bytes)
            formulas = (sum(costs._formula(op, impl, where, message_bytes)) for costs in (self, self._own))
            return scaled_to_link(known, *formulas)
        if found:
            return self._by_table(op, impl, where, message_bytes, wire, found)
        if halves:
            return self._in_two(halves, impl, dtype, group, message_bytes)
        estimate = self._by_formula(op, impl, dtype, where, message_bytes, wire)
        return self._beside_tables(estimate, impl, source.near, message_bytes)

    def _source(self, op: str, impl: str, dtype: str, group: GroupName) -> Source:
        """Where the time of a collective comes from, which is the same for any size."""
        key = (op, impl, dtype, group)
        if key not in self._sources:
            where = placement(group, self._parallelism, self._hardware)
            found, halves = self._table(op, impl, dtype, where), COLLECTIVES[op].halves
            in_two = not found and halves and impl not in ONE_LAUNCH and self._table(halves[0], impl, dtype, where)
            near = None if found or in_two else self._near(op, impl, dtype, where)
            received = COLLECTIVES[op].received(where.size)
            self._sources[key] = Source(where, received, found, halves if in_two else (), near)
        return self._sources[key]

    def _near(self, op: str, impl: str, dtype: str, where: Placement) -> Near | None:
        """A table of something near: of the whole of which a collective is a half, of other ranks."""
        if where.num_nodes > 1:
            return None
        near = [(whole.name, where) for whole in COLLECTIVES.values() if op in whole.halves]
        for tables in (self._tables, self._lent):
            size = tables.nearest_size(Measured(op, impl, dtype, where.size))
            if size is not None and size <= self._hardware.devices_per_node:
                near.append((op, Placement(size, 1)))
        for other, there in near:
            found = self._table(other, impl, dtype, there)
            if found:
                return Near(other, there, found)
        return None

    def _beside_tables(self, estimate: Estimate, impl: str, near: Near | None, message_bytes: float) -> Estimate:
        """A formula's time, put right by a table of something near.

        Rivals at a boundary should be priced from one kind of source: a measured all-reduce beside a reduce-scatter by
        formula would decide by the formula's error.
        """
        if near is None:
            return estimate
        other, there, found = near
        own = self if self._own is None else self._own  # the link that the table knows
        known = own._by_table(other, impl, there, message_bytes, 0.0, found).total_us
        ratio = known / sum(own._formula(other, impl, there, message_bytes))
        source = f"{estimate.source}, times {ratio:.2f} as {other} over {there.size}: {found.source}"
        return Estimate(estimate.time_us * ratio, estimate.launch_us * ratio, estimate.wire_bytes, "formula", source)

    def _by_table(
        self, op: str, impl: str, where: Placement, message_bytes: float, wire: float, found: Found
    ) -> Estimate:
        curve = found.curve
        time, extrapolated = curve.at(message_bytes)
        if message_bytes < curve.sizes[0]:  # follow the formula's slope down from the first point
            below, first = (sum(self._formula(op, impl, where, size)) for size in (message_bytes, curve.sizes[0]))
            time *= below / first
        return Estimate(time, 0.0, wire, found.provenance, _marked(found, extrapolated))

    def _in_two(
        self, halves: tuple[str, ...], impl: str, dtype: str, group: GroupName, message_bytes: float
    ) -> Estimate:
        """A collective without a table: its two halves by theirs, less the second library call."""
        scatter, gather = (self.collective(half, impl, dtype, group, message_bytes) for half in halves)
        call = self._hardware.links.intra_node.collective_overhead_us.value
        return Estimate(
            max(scatter.total_us, scatter.total_us + gather.total_us - call),
            0.0,
            scatter.wire_bytes + gather.wire_bytes,
            weakest({scatter.provenance, gather.provenance, "formula"}),
            f"reduce-scatter + all-gather: {scatter.source}",
        )

    def _formula(self, op: str, impl: str, where: Placement, message_bytes: float) -> tuple[float, float]:
        if impl in ONE_LAUNCH and where.num_nodes == 1:
            return one_launch_us(op, ONE_LAUNCH[impl], self._ranks(where.size), message_bytes)
        return hierarchical_us(op, where, message_bytes, self._hardware, _rings(impl))

    def _ranks(self, size: int) -> Ranks:
        """What kernels in one launch find among the ranks of a node: the rate that the library's all-gather reaches."""
        if size not in self._reached:
            link, devices = self._hardware.links.intra_node, self._hardware.devices_per_node
            rate = bandwidth_bytes_per_us(link, size, devices)
            known = self if self._own is None else self._own
            found = known._table(ALL_GATHER.name, self._hardware.backend, "bf16", Placement(size, 1))
            if found is not None:
                largest = found.curve.sizes[-1]
                measured = COLLECTIVES[ALL_GATHER.name].received(size) * largest / found.curve.latencies[-1]
                theirs = bandwidth_bytes_per_us(known._hardware.links.intra_node, size, devices)
                rate *= measured / theirs
            figures = {link.bandwidth_gb_per_s.provenance, link.efficiency.provenance} if found is None else set()
            provenance = weakest({"formula", *figures})
            memory = self._hardware.memory
            passes = memory.bandwidth_gb_per_s.value * memory.bandwidth_efficiency.value * 1e3
            self._reached[size] = Ranks(size, rate, link.latency_us.value, provenance, passes)
        return self._reached[size]

    def peer_to_peer(self, op: str, tokens_bytes: float, group_bytes: float) -> Estimate:
        """A fused kernel over all tp ranks: one launch, its signal rounds, and the bytes it reads from peers.

        op             by which its record knows the ways of such a kernel; the cheapest is taken
        tokens_bytes   bytes of the rows of all DP groups
        group_bytes    bytes of one rank's rows (a DP group's)
        """
        p, link = self._parallelism, self._hardware.links.intra_node
        if p.tp > self._hardware.devices_per_node:
            raise InputError(
                "fused peer-to-peer kernels reach the devices of one node only", field="parallelism.tp", value=p.tp
            )
        rate = bandwidth_bytes_per_us(link, p.tp, self._hardware.devices_per_node)
        ways = KINDS[op].rounds
        assert ways is not None  # checked when the executor was read
        launch = self._hardware.memory.kernel_overhead_us.value
        hop = link.latency_us.value
        options = ways(p.tp, p.attn_tp, tokens_bytes, group_bytes)
        rounds, received = min(options, key=lambda o: o[0] * hop + o[1] / rate)
        return Estimate(
            received / rate,
            launch + rounds * hop,
            received,
            "formula",
            f"one launch, {rounds} signal rounds, peer-to-peer bytes over {link.bandwidth_gb_per_s.value:g} GB/s",
        )

    def one_kernel(self, work: OneKernel, rows: int, width: int) -> Estimate:
        """An op that is one kernel, by the table of its width or of the nearest one, else by formula."""
        size = self._parallelism.group_size(work.group)
        message_bytes = rows * width * work.bytes_per_element
        wire = received_bytes(work, size, message_bytes, width)
        found = self._of_kernel(work, width)
        if found is None:
            ranks, figures = self._ranks(size), ONE_LAUNCH[work.impl]
            provenance: Provenance = "assumed" if figures.is_assumed else ranks.provenance
            source = f"one launch, figures of {figures.source}"
            return Estimate(*formula_us(work, ranks, message_bytes, width), wire, provenance, source)
        if self._own is not None and not found.is_given:
            known = self._own.one_kernel(work, rows, width)
            formulas = (sum(formula_us(work, costs._ranks(size), message_bytes, width)) for costs in (self, self._own))
            return scaled_to_link(known, *formulas)
        time, extrapolated = found.curve.at(message_bytes)
        return Estimate(time, 0.0, wire, found.provenance, _marked(found, extrapolated))

    def is_measured(self, impl: str) -> bool:
        """True if there is any table of an impl on this machine."""
        return impl in self._tables.impls

    def has_algorithm(self, op: str, impl: str, algorithm: str) -> bool:
        """True if there is a table of an op by an impl that was told its algorithm."""
        return (op, impl, algorithm) in self._tables.algorithms

    @property
    def on_own_link(self) -> CollectiveCosts | None:
        """The prices on the machine's own link, where this one is another."""
        return self._own

    def found(self, wanted: Measured, width: int, lent: bool = True) -> Found | None:
        """The table of an op that is measured whole, of its width or the nearest one; `lent`: another machine's too."""
        return self._tables.find(wanted, width) or (self._lent.find(wanted, width) if lent else None)

    def ways_of(self, wanted: Measured, lent: bool = True) -> frozenset[tuple[str | None, int]]:
        """The algorithms and numbers of pieces by which there are tables of a composed sum."""
        return self._tables.ways_of(wanted) | (self._lent.ways_of(wanted) if lent else frozenset())

    def in_other_formats(self, wanted: Measured, lent: bool = True) -> frozenset[Measured]:
        """What there are tables of that differs by its format, so by its op too, or in its number of pieces."""
        return self._tables.in_other_formats(wanted) or (self._lent.in_other_formats(wanted) if lent else frozenset())

    def num_nodes(self, group: GroupName) -> int:
        """Nodes that a group spans."""
        return placement(group, self._parallelism, self._hardware).num_nodes

    def table_sizes(self, op: str, impl: str, dtype: str, group: GroupName) -> tuple[float, ...]:
        """Message sizes at which the cost of a collective has a kink; empty where a formula stands."""
        where = placement(group, self._parallelism, self._hardware)
        found = self._table(op, impl, dtype, where) or self._table(op, impl, dtype, Placement(where.per_node, 1))
        return found.curve.sizes if found else ()

    def kernel_sizes(self, work: OneKernel, width: int) -> tuple[float, ...]:
        """The same of an op that is one kernel; empty where it has no table."""
        found = self._of_kernel(work, width)
        return found.curve.sizes if found else ()

    def _table(self, op: str, impl: str, dtype: str, where: Placement) -> Found | None:
        """Across nodes only a table of this machine for more ranks than a node has: it cannot be of another group."""
        wanted = Measured(op, impl, dtype, where.size)
        if where.num_nodes > 1:
            return self._tables.find(wanted) if where.size > self._hardware.devices_per_node else None
        return self._tables.find(wanted) or self._lent.find(wanted)

    def _of_kernel(self, work: OneKernel, width: int) -> Found | None:
        size = self._parallelism.group_size(work.group)
        wanted = Measured(
            work.op, work.impl, work.dtype, size, work.algorithm, work.attn_dp, work.wire, work.scale_group
        )
        return self.found(wanted, width)

    def _by_formula(
        self, op: str, impl: str, dtype: str, where: Placement, message_bytes: float, wire: float
    ) -> Estimate:
        links = self._hardware.links
        if impl in ONE_LAUNCH and where.num_nodes == 1:
            time, fixed = self._formula(op, impl, where, message_bytes)
            source, provenance = f"one launch, figures of {ONE_LAUNCH[impl].source}", self._ranks(where.size).provenance
            return Estimate(time, fixed, wire, provenance, source)
        source = f"{links.intra_node.topology} formula, {links.intra_node.bandwidth_gb_per_s.source}"
        provenances = {"formula", *_provenances(links.intra_node)}
        intra = None
        if where.num_nodes > 1:
            assert links.inter_node is not None
            provenances = {"formula", *_provenances(links.inter_node)}
            source = f"level by level: {links.inter_node.bandwidth_gb_per_s.source}"
            if where.per_node > 1 and (table := self._table(op, impl, dtype, Placement(where.per_node, 1))):
                intra = (
                    table.curve.at(message_bytes)[0] * self._ratio_inside(op, impl, where.per_node, message_bytes),
                    0.0,
                )
                provenances.add(table.provenance)
                source += f"; inside a node {table.source}"
            elif where.per_node > 1:
                provenances |= _provenances(links.intra_node)
        time, fixed = hierarchical_us(op, where, message_bytes, self._hardware, _rings(impl), intra)
        return Estimate(time, fixed, wire, weakest(provenances), source)

    def _ratio_inside(self, op: str, impl: str, size: int, message_bytes: float) -> float:
        """What the formula makes of another link inside the nodes."""
        if self._own is None:
            return 1.0
        new, own = (
            sum(one_level_us(op, size, message_bytes, h.links.intra_node, h.devices_per_node, _rings(impl)))
            for h in (self._hardware, self._own._hardware)
        )
        return new / own


def scaled_to_link(known: Estimate, new_us: float, own_us: float) -> Estimate:
    """A time on the machine's own link, on another one."""
    provenance, source = weakest({known.provenance, "formula"}), f"{known.source}; {NOTE}"
    return Estimate(known.total_us * new_us / own_us, 0.0, known.wire_bytes, provenance, source)


def _rings(impl: str) -> bool:
    return impl in BACKENDS and BACKENDS[impl].rings


def _marked(found: Found, extrapolated: bool) -> str:
    return found.source + (", extrapolated" if extrapolated else "")


def _provenances(link: Link) -> set[Provenance]:
    return {
        figure.provenance
        for figure in (link.bandwidth_gb_per_s, link.efficiency, link.latency_us, link.collective_overhead_us)
    }
