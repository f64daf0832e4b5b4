"""What one-kernel ops of commplan's move over the links; their times come from tables alone."""

from __future__ import annotations

from ..descriptions.hardware import Hardware
from ..strategy.op_kinds import KINDS
from ..strategy.op_record import Part
from .links import bandwidth_bytes_per_us
from .terms import OneKernel


def received_bytes(work: OneKernel, size: int, message_bytes: float, width: int | None) -> float:
    """Bytes that a rank of a group of `size` receives from its peers: what an algorithm that wastes nothing brings it.

    message_bytes  of the activations: what each rank puts into a sum, what a gather gives; of a pair, all rows
    width          elements per row; without it no scales are counted

    An all-reduce is taken for two-shot: a kernel that sends small messages one-shot receives more of those.
    """
    kind = KINDS[work.op]
    whole: dict[Part, float] = {"activations": message_bytes}
    if kind.wire is not None:
        elements, scales = message_bytes / work.bytes_per_element, kind.wire.scales
        rows_scales = scales.bytes_each * scales.per_row(width) * elements / width if width else 0.0
        whole |= {"values": elements * kind.wire.value_bytes, "scales": rows_scales}
    attn_tp = size // work.attn_dp if work.attn_dp is not None else size
    received = kind.received(work.algorithm, size, attn_tp)
    return sum(whole[part] * over / under for part, (over, under) in received.items())


def formula_us(received: float, size: int, hardware: Hardware) -> float:
    """One launch, two signal rounds and the bytes at the link's rate: how a varied link changes such a kernel."""
    link = hardware.links.intra_node
    rate = bandwidth_bytes_per_us(link, size, hardware.devices_per_node)
    return hardware.memory.kernel_overhead_us.value + 2 * link.latency_us.value + received / rate
