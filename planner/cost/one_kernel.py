"""Ops that are one kernel: what they move over the links, and their times where no table stands."""

from __future__ import annotations

from ..executors.launches import ONE_LAUNCH
from ..strategy.op_kinds import KINDS
from ..strategy.op_record import Rows
from ..strategy.wire import Part
from .one_launch import Ranks, all_reduce_us, exchange_us
from .terms import OneKernel


def received_bytes(work: OneKernel, size: int, message_bytes: float, width: int | None) -> float:
    """Bytes that a rank of a group of `size` receives from its peers: what an algorithm that wastes nothing brings it.

    message_bytes  of the activations: what each rank puts into a sum, what a gather gives; of a pair, all rows
    width          elements per row; without it no scales are counted

    An all-reduce is taken for two-shot: a kernel that sends small messages one-shot receives more of those.
    """
    kind = KINDS[work.op]
    whole: dict[Part, float] = {"activations": message_bytes}
    wire = kind.format_of(work.wire, work.scale_group)
    if wire is not None:
        elements, scales = message_bytes / work.bytes_per_element, wire.scales
        rows_scales = scales.bytes_each * scales.per_row(width) * elements / width if width else 0.0
        whole |= {"values": elements * wire.value_bytes, "scales": rows_scales}
    attn_tp = size // work.attn_dp if work.attn_dp is not None else size
    received = kind.received(work.algorithm, size, attn_tp)
    return sum(whole[part] * over / under for part, (over, under) in received.items())


def formula_us(work: OneKernel, ranks: Ranks, message_bytes: float, width: int) -> tuple[float, float]:
    """(time that grows with the size, fixed cost) where no table stands, and how a varied link changes a kernel."""
    figures, kind, size = ONE_LAUNCH[work.impl], KINDS[work.op], ranks.size
    normed = width if figures.norm_us else 0
    if kind.is_plain and kind.rows is Rows.SUMMED:
        return all_reduce_us(figures, ranks, message_bytes, normed)
    if kind.spans_two and kind.rounds is not None and work.attn_dp is not None:
        ways = kind.rounds(size, size // work.attn_dp, message_bytes, message_bytes / work.attn_dp)
        return min((exchange_us(figures, ranks, steps - 1, moved) for steps, moved in ways), key=sum)
    steps = kind.way(work.algorithm).exchanges
    time, fixed = exchange_us(figures, ranks, steps, received_bytes(work, size, message_bytes, width), normed)
    if not kind.is_quantized:
        return time, fixed
    fixed += figures.quantize_floor_us + steps * figures.quantize_us * width / 1024
    return time + figures.quantize_passes * message_bytes / ranks.memory_rate, fixed
