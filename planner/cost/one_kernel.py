"""What one-kernel ops of commplan's move over the links; their times come from tables alone."""

from __future__ import annotations

from ..spec.hardware import Hardware
from .links import bandwidth_bytes_per_us
from .terms import OneKernel

SCALE_BYTES = 4  # one fp32 scale per row of INT8 values


def received_bytes(work: OneKernel, size: int, message_bytes: float, width: int | None) -> float:
    """Bytes that a rank of a group of `size` receives from its peers.

    message_bytes  of the activations: what each rank puts into a sum, what a gather gives; of a pair, all rows
    width          elements per row, each row of INT8 values with a scale of its own
    """
    share = (size - 1) / size
    if work.op == "int8_all_reduce":
        elements = message_bytes / work.bytes_per_element
        quantised = elements + (SCALE_BYTES * elements / width if width else 0.0)
        return (size - 1) * quantised if work.algorithm == "gather" else 2 * share * quantised
    if work.op == "all_reduce":  # two-shot; a kernel that sends small messages one-shot receives more of those
        return 2 * share * message_bytes
    if work.attn_dp is not None:  # a pair: shards of the DP group's own sum, and the rows of all groups
        attn_tp = size // work.attn_dp
        return share * message_bytes + (attn_tp - 1) / attn_tp * message_bytes / work.attn_dp
    return share * message_bytes


def formula_us(received: float, size: int, hardware: Hardware) -> float:
    """One launch, two signal rounds and the bytes at the link's rate: how a varied link changes such a kernel."""
    link = hardware.links.intra_node
    rate = bandwidth_bytes_per_us(link, size, hardware.devices_per_node)
    return hardware.memory.kernel_overhead_us.value + 2 * link.latency_us.value + received / rate
