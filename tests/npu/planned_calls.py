"""What a strategy file asks of an NPU: every kernel and collective of a forward in order, with shapes and types.

Read off the file and the layouts that it walks through; nothing of the runtime is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from commplan.planner.strategy.file import Layout, Op, Parallelism, StrategyFile, group_of, walk

from .fake_npu import Call

HIDDEN = torch.bfloat16
COMPOSED = ("composed", "composed_norm")
RECORD_UNIT = 16  # bytes to which a composed sum fills up the one fp32 scale of a row


@dataclass(frozen=True)
class Forward:
    """A forward in which every DP group brings `batch` requests of `seq` tokens; `kept` positions need logits."""

    batch: int
    seq: int
    kept: int

    @property
    def own(self) -> int:
        """Tokens of one DP group."""
        return self.batch * self.seq


def planned_calls(strategy: StrategyFile, mode: str, forward: Forward, vocab_size: int, rank: int) -> list[Call]:
    """Calls of one forward on a rank, from the embedding to the logits."""
    return list(_Planned(strategy, forward, rank).calls(mode, vocab_size))


def groups_of(p: Parallelism, rank: int) -> dict[str, tuple[int, ...]]:
    """The ranks of a rank's groups: a DP group is a run of neighbours, the dp axis takes one of each."""
    first = rank - rank % p.attn_tp
    return {
        "tp": tuple(range(p.tp)),
        "attn_tp": tuple(range(first, first + p.attn_tp)),
        "attn_dp": tuple(range(rank % p.attn_tp, p.tp, p.attn_tp)),
    }


class _Planned:
    def __init__(self, strategy: StrategyFile, forward: Forward, rank: int) -> None:
        self.strategy, self.forward = strategy, forward
        self.p = strategy.parallelism
        self.groups = groups_of(self.p, rank)
        shard = -(-forward.own // self.p.attn_tp)
        self.shard = shard
        self.group = forward.own if self.p.attn_dp == 1 else shard * self.p.attn_tp
        self.total = self.group * self.p.attn_dp
        self.width = strategy.model.hidden_size

    def calls(self, mode: str, vocab_size: int) -> Iterator[Call]:
        beside = False  # does a residual travel beside the hidden stream, still to be added?
        plan = self.strategy.range_of(mode, self.total)
        for layer, boundary, op, before, after in walk(self.strategy, plan):
            shape = self.strategy.layer_shape(layer or 0)
            group = group_of(boundary, op, before, shape, self.p)
            if boundary.endswith("_in"):
                assert before is not None
                yield self._norm(self._rows(before.hidden), beside)
                yield from self._gather(op, boundary, self._rows(before.hidden), group)
            else:
                yield from self._sum(op, self.total if boundary == "mlp_out" else self.group, group)
                if op.residual == "gather":
                    assert before is not None
                    yield self._gather_residual(before.residual, after.residual)
                beside = before is not None and op.residual != "fold"
        logits = self.forward.batch * self.forward.kept * self.p.attn_dp
        yield self._all_gather(logits, -(-vocab_size // self.p.tp), "tp")

    # ---- parts ------------------------------------------------------------------------------------------------------

    def _gather(self, op: Op, boundary: str, rows: int, group: str) -> Iterator[Call]:
        """The op at an `_in` boundary."""
        match op.name:
            case "none" | "fused" | "slice":
                pass
            case "latent_all_gather":
                yield self._all_gather(rows, self.strategy.model.latent_width, group)
            case "all_gather":
                sent = self._most_needed_rows(rows) if boundary == "head_in" else rows
                yield self._all_gather(sent, self.width, group)

    def _gather_residual(self, held: Layout, wanted: Layout) -> Call:
        group = {("dp_local", "replicated"): "attn_dp", ("token_sharded", "dp_local"): "attn_tp"}.get(
            (held, wanted), "tp"
        )
        return self._all_gather(self._rows(held), self.width, group)

    def _sum(self, op: Op, rows: int, group: str) -> Iterator[Call]:
        """The op at an `_out` boundary, on `rows` partial rows."""
        ranks = len(self.groups[group])
        match op.name, op.algorithm:
            case "none", _:
                pass
            case "all_reduce", _:  # over more ranks than hold these rows: in a buffer of all of them
                yield self._all_reduce(self.total if group == "tp" else rows, group)
            case "reduce_scatter", _:
                yield self._reduce_scatter(self.shard, group)
            case "reduce_scatter_all_gather", _:
                yield self._reduce_scatter(self.shard, group)
                if self.p.attn_tp > 1:
                    yield self._all_gather(self.shard, self.width, "attn_tp")
            case "all_reduce_all_gather", _:
                yield self._all_reduce(self.group, "attn_tp")
                yield self._all_gather(self.group, self.width, "attn_dp")
            case "reduce_scatter_all_reduce", _:
                yield self._reduce_scatter(self.group, "attn_dp")
                yield self._all_reduce(self.group, "attn_tp")
            case "int8_all_reduce", "gather" if op.impl in COMPOSED:
                assert op.pieces is None
                yield self._quantize(rows)
                yield Call("_allgather_base_", *self._records(rows, rows * ranks), torch.int8, self.groups[group])
            case "int8_all_reduce", "gather":
                yield self._quantize(rows)
                yield from self._int8_with_scales("_allgather_base_", rows, rows * ranks, group)
            case "int8_all_reduce", "two_shot":
                block = -(-rows // ranks)
                yield self._quantize(rows)
                yield from self._int8_with_scales("alltoall_base_", block * ranks, block * ranks, group)
                yield self._quantize(block)
                yield from self._int8_with_scales("_allgather_base_", block, block * ranks, group)
            case other:
                raise AssertionError(f"no calls are known for {other}")

    def _int8_with_scales(self, name: str, sent: int, received: int, group: str) -> Iterator[Call]:
        ranks = self.groups[group]
        yield Call(name, (sent, self.width), (received, self.width), torch.int8, ranks)
        yield Call(name, (sent, 1), (received, 1), torch.float32, ranks)

    def _records(self, sent: int, received: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Shapes of what a composed sum sends and receives: a row's INT8 values and its scale in one record."""
        width = self.width + RECORD_UNIT
        return (sent, width), (received, width)

    def _quantize(self, rows: int) -> Call:
        return Call("npu_dynamic_quant", (rows, self.width), (rows, self.width), torch.int8)

    def _norm(self, rows: int, adds: bool) -> Call:
        name = "npu_add_rms_norm" if adds else "npu_rms_norm"
        return Call(name, (rows, self.width), (rows, self.width), HIDDEN)

    def _all_reduce(self, rows: int, group: str) -> Call:
        return Call("allreduce_", (rows, self.width), (rows, self.width), HIDDEN, self.groups[group])

    def _reduce_scatter(self, rows: int, group: str) -> Call:
        sent = (rows * len(self.groups[group]), self.width)
        return Call("_reduce_scatter_base_", sent, (rows, self.width), HIDDEN, self.groups[group])

    def _all_gather(self, rows: int, width: int, group: str) -> Call:
        received = (rows * len(self.groups[group]), width)
        return Call("_allgather_base_", (rows, width), received, HIDDEN, self.groups[group])

    # ---- rows -------------------------------------------------------------------------------------------------------

    def _rows(self, layout: Layout) -> int:
        return {"replicated": self.total, "dp_local": self.group, "token_sharded": self.shard}[layout]

    def _most_needed_rows(self, rows_of_a_rank: int) -> int:
        """Of the rows that need logits, those on the rank that has most of them: so many every rank sends."""
        f = self.forward
        needed = [
            group * self.group + request * f.seq + position
            for group in range(self.p.attn_dp)
            for request in range(f.batch)
            for position in range(f.seq - f.kept, f.seq)
        ]
        owners = [row // rows_of_a_rank for row in needed]
        return max(owners.count(owner) for owner in set(owners))
