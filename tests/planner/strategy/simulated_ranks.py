"""Ranks that hold numbers: what an op does to the rows of both streams, so that a layout can be held to its word.

A row is one integer. A block of the model makes of a row h the sum of the shares of its ranks, and the norm is not
linear, so that a share left out, counted twice or added on the wrong side of the norm shows.
"""

from __future__ import annotations

from dataclasses import dataclass

from commplan.planner.strategy.layout import Parallelism, State
from commplan.planner.strategy.ops import Op

Rows = dict[int, int]  # row number -> value
_PRIME = 2**31 - 1


def norm(value: int) -> int:
    return (value * value + 7) % _PRIME


def share(rank: int, row: int) -> int:
    """What one rank adds to the block's output for an input row."""
    return (row * (2 * rank + 3) + rank) % 1009


@dataclass(frozen=True)
class Ranks:
    """tp ranks and their groups; one row per shard."""

    p: Parallelism

    def group(self, name: str, rank: int) -> list[int]:
        """The ranks with which a rank works in a group."""
        first = rank // self.p.attn_tp * self.p.attn_tp
        return {
            "tp": list(range(self.p.tp)),
            "attn_tp": list(range(first, first + self.p.attn_tp)),
            "attn_dp": list(range(rank % self.p.attn_tp, self.p.tp, self.p.attn_tp)),
        }[name]

    def rows(self, layout: str, rank: int) -> list[int]:
        """Numbers of the rows that a rank holds: shards lie DP group by DP group."""
        if layout == "replicated":
            return list(range(self.p.tp))
        return self.group("attn_tp", rank) if layout == "dp_local" else [rank]

    def spread(self, values: Rows, layout: str) -> list[Rows]:
        """A stream in a layout."""
        return [{row: values[row] for row in self.rows(layout, rank)} for rank in range(self.p.tp)]

    # ---- collectives ---------------------------------------------------------------------------------------

    def all_gather(self, stream: list[Rows], group: str) -> list[Rows]:
        gathered = []
        for rank in range(self.p.tp):
            rows: Rows = {}
            for member in self.group(group, rank):
                for row, value in stream[member].items():
                    assert rows.setdefault(row, value) == value
            gathered.append(rows)
        return gathered

    def summed(self, partials: list[Rows], group: str, keep: list[list[int]]) -> list[Rows]:
        """Per rank the rows it keeps, summed over its group; a rank without a row contributes zero (a zero buffer)."""
        return [
            {row: sum(partials[member].get(row, 0) for member in self.group(group, rank)) for row in keep[rank]}
            for rank in range(self.p.tp)
        ]

    # ---- a boundary ----------------------------------------------------------------------------------------

    def into_block(self, op: Op, group: str, stream: list[Rows], after: State) -> list[Rows]:
        """The hidden stream that the next block consumes."""
        if op.kind.is_collective:
            return self.all_gather(stream, group)
        if op.name == "slice":
            return [{row: stream[rank][row] for row in self.rows(after.hidden, rank)} for rank in range(self.p.tp)]
        return stream

    def out_of_block(
        self, op: Op, group: str, partials: list[Rows], residual: list[Rows] | None, before: State | None, after: State
    ) -> tuple[list[Rows], list[Rows]]:
        """Both streams after the op, the residual add and the norm."""
        if op.residual == "fold" and residual and before:
            partials = self._folded(partials, residual, before.residual)
        rows = self._reduced(op, group, partials, after)
        if op.residual == "gather" and residual and before:
            residual = self._gathered_residual(residual, before.residual, after.residual)
        if residual is not None and op.residual != "fold":
            rows = [{row: value + residual[rank][row] for row, value in held.items()} for rank, held in enumerate(rows)]
        return [{row: norm(value) for row, value in held.items()} for held in rows], rows

    def _reduced(self, op: Op, group: str, partials: list[Rows], after: State) -> list[Rows]:
        every = range(self.p.tp)
        mine, shard = ([self.rows(layout, rank) for rank in every] for layout in (after.hidden, "token_sharded"))
        if op.name == "none":
            return partials
        if op.name == "reduce_scatter":
            return self.summed(partials, group, shard)
        if op.name == "reduce_scatter_all_gather":
            return self.all_gather(self.summed(partials, group, shard), "attn_tp")
        if op.name == "all_reduce_all_gather":
            held = [self.rows("dp_local", rank) for rank in every]
            return self.all_gather(self.summed(partials, "attn_tp", held), "attn_dp")
        if op.name == "reduce_scatter_all_reduce":
            return self.summed(self.summed(partials, "attn_dp", mine), "attn_tp", mine)
        return self.summed(partials, group, mine)  # an all-reduce, of which a DP group may keep its slice

    def _folded(self, partials: list[Rows], residual: list[Rows], layout: str) -> list[Rows]:
        """Rows held by one rank alone are added there; rows that a DP group shares are added on its first rank."""
        folded = []
        for rank, held in enumerate(partials):
            adds = layout == "token_sharded" or rank % self.p.attn_tp == 0
            extra = residual[rank] if adds else {}
            folded.append({row: value + extra.get(row, 0) for row, value in held.items()})
        return folded

    def _gathered_residual(self, residual: list[Rows], source: str, destination: str) -> list[Rows]:
        if source == "dp_local":
            return self.all_gather(residual, "attn_dp")
        return self.all_gather(residual, "attn_tp" if destination == "dp_local" else "tp")
