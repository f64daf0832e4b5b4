"""Time of a hand-over: what a pipeline stage sends to the next one, rank by rank, over the link between the two.

All ranks of a stage send at once, each to its like. Rows that several of them hold need not cross so often: each may
send a slice, and the ranks of the next stage gather them among themselves, as servers do. The shorter way counts.
Where some stages share a node and others do not, a hand-over costs the mean: their sum over a forward is exact.
"""

from __future__ import annotations

from ..descriptions.hardware import Link
from ..descriptions.placement import stage_boundaries
from ..descriptions.setup import Setup
from ..strategy.op_kinds import ALL_GATHER
from .collectives import CollectiveCosts
from .estimate import Estimate, weakest
from .links import bandwidth_bytes_per_us
from .terms import HandOver

_PAIR = 2  # a sender and its like: on a full mesh they have one link


class HandOverCosts:
    """Prices of hand-overs between the stages of a setup."""

    def __init__(self, setup: Setup, collectives: CollectiveCosts) -> None:
        self._collectives, self._p, self._hardware = collectives, setup.parallelism, setup.hardware

    def estimate(self, work: HandOver, stream_bytes: float) -> Estimate:
        """One hand-over of streams of so many bytes on a rank, averaged over the stage boundaries of a forward."""
        inside, between = stage_boundaries(self._p, self._hardware)
        links, priced = self._hardware.links, []
        if inside:
            priced.append((inside, self._over(links.intra_node, self._hardware.devices_per_node, work, stream_bytes)))
        if between:
            assert links.inter_node is not None
            priced.append((between, self._over(links.inter_node, self._hardware.num_nodes, work, stream_bytes)))
        return _mean(priced)

    def _over(self, link: Link, ends: int, work: HandOver, stream_bytes: float) -> Estimate:
        """The shorter of both ways over a link that joins so many devices or nodes."""
        whole = _sent(link, ends, work.streams * stream_bytes)
        ranks = self._p.group_size(work.group) if work.group is not None else 1
        if ranks == 1:
            return whole
        group = self._p.canonical_group(work.group)  # type: ignore[arg-type]
        gathered = self._collectives.collective(ALL_GATHER.name, work.impl, work.dtype, group, stream_bytes)
        slices = _sent(link, ends, work.streams * stream_bytes / ranks)
        sliced = Estimate(
            slices.time_us + work.streams * gathered.time_us,
            slices.launch_us + work.streams * gathered.launch_us,
            slices.wire_bytes + work.streams * gathered.wire_bytes,
            weakest({slices.provenance, gathered.provenance}),
            f"in slices, gathered behind it; {slices.source}; {gathered.source}",
        )
        return min(whole, sliced, key=lambda way: way.total_us)


def _sent(link: Link, ends: int, num_bytes: float) -> Estimate:
    figures = (link.bandwidth_gb_per_s, link.efficiency, link.latency_us, link.collective_overhead_us)
    return Estimate(
        num_bytes / bandwidth_bytes_per_us(link, _PAIR, ends),
        link.collective_overhead_us.value + link.latency_us.value,
        num_bytes,
        weakest({"formula", *(figure.provenance for figure in figures)}),
        f"to the next stage by formula, {link.bandwidth_gb_per_s.source}",
    )


def _mean(priced: list[tuple[int, Estimate]]) -> Estimate:
    count = sum(times for times, _ in priced)

    def mean(field: str) -> float:
        return float(sum(times * getattr(each, field) for times, each in priced)) / count

    source = "; ".join(dict.fromkeys(each.source for _, each in priced))
    known = weakest({each.provenance for _, each in priced})
    return Estimate(mean("time_us"), mean("launch_us"), mean("wire_bytes"), known, source)
