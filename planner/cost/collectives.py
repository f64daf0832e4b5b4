"""Time of one collective: from a table of this machine, else a published one, else a formula."""

from __future__ import annotations

from ..errors import InputError
from ..layout import Parallelism
from ..spec.calibration import Table
from ..spec.hardware import Link
from ..spec.loader import Setup
from .estimate import Estimate, weakest
from .links import Placement, bandwidth_bytes_per_us, hierarchical_us, placement
from .tables import Curve

# Bytes travel alike whatever they mean: where a data type has no table of its own, one of these stands in.
_STANDS_IN = {"bf16": ("bf16", "fp32"), "fp16": ("bf16", "fp32"), "fp32": ("fp32", "bf16"), "int8": ("int8", "bf16")}

_Key = tuple[str, str, str, int]  # op, impl, dtype, group size

# Bytes that a rank receives, as a multiple of the whole buffer M, for N ranks.
_RECEIVED = {
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
}


class CollectiveCosts:
    """Prices of collectives on one machine under one parallelism."""

    def __init__(self, setup: Setup) -> None:
        self._hardware = setup.hardware
        self._parallelism: Parallelism = setup.parallelism
        self._executor = setup.executor
        self._tables: dict[_Key, tuple[Table, str, str]] = {}
        self._curves: dict[_Key, tuple[Curve, str, str]] = {}  # smoothed when first asked for
        for used in setup.calibrations:
            c = used.calibration
            provenance: str = c.provenance
            source = c.source
            if used.transferred_because:
                provenance = "table (transferred)"
                source = f"{c.machine} table: {used.transferred_because} ({c.source})"
            for table in c.tables:
                key = (table.op, table.impl, table.dtype, table.group_size)
                # An earlier file wins: a calibration of this machine comes first.
                self._tables.setdefault(key, (table, provenance, source))

    def collective(self, op: str, impl: str, dtype: str, group: str, message_bytes: float) -> Estimate:
        """One library collective over a group. `message_bytes` is the whole buffer; 0 bytes cost nothing."""
        where = placement(group, self._parallelism, self._hardware)
        if where.size == 1 or message_bytes <= 0:
            return Estimate(0.0, 0.0, 0.0, "formula", "nothing travels")
        wire = _RECEIVED[op](where.size) * message_bytes
        if where.num_nodes == 1:
            if found := self._table(op, impl, dtype, where.size):
                return self._by_table(op, where, message_bytes, wire, found)
            if op == "all_reduce" and self._table("reduce_scatter", impl, dtype, where.size):
                return self._all_reduce_in_two(impl, dtype, group, message_bytes)
        return self._by_formula(op, impl, dtype, where, message_bytes, wire)

    def _by_table(
        self, op: str, where: Placement, message_bytes: float, wire: float, found: tuple[Curve, str, str]
    ) -> Estimate:
        curve, provenance, source = found
        time, extrapolated = curve.at(message_bytes)
        if message_bytes < curve.sizes[0]:  # follow the formula's slope down from the first point
            time *= sum(self._formula(op, where, message_bytes)) / sum(self._formula(op, where, curve.sizes[0]))
        return Estimate(time, 0.0, wire, provenance, source + (", extrapolated" if extrapolated else ""))

    def _all_reduce_in_two(self, impl: str, dtype: str, group: str, message_bytes: float) -> Estimate:
        """An all-reduce without a table: its two halves by theirs, less the second library call."""
        scatter = self.collective("reduce_scatter", impl, dtype, group, message_bytes)
        gather = self.collective("all_gather", impl, dtype, group, message_bytes)
        call = self._hardware.links.intra_node.collective_overhead_us.value
        return Estimate(
            max(scatter.total_us, scatter.total_us + gather.total_us - call),
            0.0,
            scatter.wire_bytes + gather.wire_bytes,
            weakest({scatter.provenance, gather.provenance, "formula"}),
            f"reduce-scatter + all-gather: {scatter.source}",
        )

    def _formula(self, op: str, where: Placement, message_bytes: float) -> tuple[float, float]:
        return hierarchical_us(op, where, message_bytes, self._hardware)

    def peer_to_peer(self, pattern: str, tokens_bytes: float, rounds_bytes: float) -> Estimate:
        """A fused kernel over all tp ranks: one launch, its signal rounds, and the bytes it reads from peers.

        pattern        `gather_sum` (all_reduce_all_gather), `scatter_sum` (reduce_scatter_all_reduce),
                       `all_gather` or `reduce_scatter`
        tokens_bytes   bytes of the rows of all DP groups
        rounds_bytes   bytes of one rank's rows (a DP group's)
        One-shot reads every partial it needs from its owner; two-shot sums a part of the rows first and reads the
        sums, which takes another round.
        """
        p, link = self._parallelism, self._hardware.links.intra_node
        if p.tp > self._hardware.devices_per_node:
            raise InputError(
                "fused peer-to-peer kernels reach the devices of one node only", field="parallelism.tp", value=p.tp
            )
        rate = bandwidth_bytes_per_us(link, p.tp, self._hardware.devices_per_node)
        n, a = p.tp, p.attn_tp
        options = {
            "gather_sum": [
                (2, a * tokens_bytes - rounds_bytes),
                (3, (a - 1) / a * rounds_bytes + (n - 1) / n * tokens_bytes),
            ],
            "scatter_sum": [
                (2, (n - 1) * rounds_bytes),
                (3, (n - 1) / n * tokens_bytes + (a - 1) / a * rounds_bytes),
            ],
            "all_gather": [(2, (n - 1) / n * tokens_bytes)],
            "reduce_scatter": [(2, (n - 1) / n * tokens_bytes)],
        }[pattern]
        launch = self._hardware.memory.kernel_overhead_us.value
        hop = link.latency_us.value
        rounds, received = min(options, key=lambda o: o[0] * hop + o[1] / rate)
        return Estimate(
            received / rate,
            launch + rounds * hop,
            received,
            "formula",
            f"one launch, {rounds} signal rounds, peer-to-peer bytes over {link.bandwidth_gb_per_s.value:g} GB/s",
        )

    def is_peer_to_peer(self, impl: str) -> bool:
        """True for fused kernels, which no table of library collectives prices."""
        declared = self._executor.impls.get(impl)
        return declared is not None and declared.kind == "peer_to_peer"

    def table_sizes(self, op: str, impl: str, dtype: str, group: str) -> tuple[float, ...]:
        """Message sizes at which the cost of a collective has a kink; empty where a formula stands."""
        where = placement(group, self._parallelism, self._hardware)
        found = self._table(op, impl, dtype, where.per_node)
        return found[0].sizes if found else ()

    def _table(self, op: str, impl: str, dtype: str, size: int) -> tuple[Curve, str, str] | None:
        for stand_in in _STANDS_IN[dtype]:
            key = (op, impl, stand_in, size)
            if key in self._curves:
                return self._curves[key]
            if known := self._tables.get(key):
                table, provenance, source = known
                curve = Curve.of(table.message_bytes, table.latency_us)
                self._curves[key] = (curve, provenance, source)
                return self._curves[key]
        return None

    def _by_formula(
        self, op: str, impl: str, dtype: str, where: Placement, message_bytes: float, wire: float
    ) -> Estimate:
        links = self._hardware.links
        source = f"{links.intra_node.topology} formula, {links.intra_node.bandwidth_gb_per_s.source}"
        provenances = {"formula", *_provenances(links.intra_node)}
        intra = None
        if where.num_nodes > 1:
            assert links.inter_node is not None
            provenances = {"formula", *_provenances(links.inter_node)}
            source = f"level by level: {links.inter_node.bandwidth_gb_per_s.source}"
            if where.per_node > 1 and (table := self._table(op, impl, dtype, where.per_node)):
                intra = (table[0].at(message_bytes)[0], 0.0)
                provenances.add(table[1])
                source += f"; inside a node {table[2]}"
            elif where.per_node > 1:
                provenances |= _provenances(links.intra_node)
        time, fixed = hierarchical_us(op, where, message_bytes, self._hardware, intra)
        return Estimate(time, fixed, wire, weakest(provenances), source)


def _provenances(link: Link) -> set[str]:
    return {
        figure.provenance
        for figure in (link.bandwidth_gb_per_s, link.efficiency, link.latency_us, link.collective_overhead_us)
    }
