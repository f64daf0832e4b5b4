"""Rows of one forward: how many each rank holds under each layout.

With attention DP the groups may bring unequal counts: every group is padded to the largest, rounded up to attn_tp.
"""

from __future__ import annotations

from typing import NamedTuple

from commplan.planner.strategy.file import DP_LOCAL, REPLICATED, LayerShape, Layout, Parallelism, State

from ..ranks.groups import Groups


class Sizes(NamedTuple):
    """Row counts of a forward, and where this rank's rows start.

    own      rows of this rank's requests (of the DP group), unpadded
    shard    rows of a token shard
    group    rows of a DP group, padded; without attention DP all rows, unpadded
    total    rows of the whole tp group: padded blocks with attention DP, unpadded without
    """

    own: int
    shard: int
    group: int
    total: int

    def of(self, layout: Layout) -> int:
        """Rows that a rank holds under a layout."""
        if layout == REPLICATED:
            return self.total
        return self.group if layout == DP_LOCAL else self.shard


def sizes_of(parallelism: Parallelism, own: int, largest: int) -> Sizes:
    """Sizes from this group's rows and the largest group's."""
    if parallelism.attn_dp == 1:
        return Sizes(own, -(-own // parallelism.tp), own, own)
    shard = -(-largest // parallelism.attn_tp)
    group = shard * parallelism.attn_tp
    return Sizes(own, shard, group, group * parallelism.attn_dp)


def offset(groups: Groups, inner: Layout, outer: Layout, sizes: Sizes) -> int:
    """First row of this rank's `inner` rows inside its `outer` rows."""
    if inner == outer:
        return 0
    if inner == DP_LOCAL:
        return groups.attn_dp.rank * sizes.group
    return (groups.tp.rank if outer == REPLICATED else groups.attn_tp.rank) * sizes.shard


def rows_into(boundary: str, before: State | None, shape: LayerShape, parallelism: Parallelism, sizes: Sizes) -> int:
    """Rows that enter the op of a boundary on this rank: what a graph's replay counts."""
    if boundary in ("embed_out", "attn_out"):
        return sizes.of(parallelism.attention_layout)
    if boundary == "mlp_out":
        return sizes.shard if shape.all_to_all else sizes.total
    assert before is not None
    return sizes.of(before.hidden)
