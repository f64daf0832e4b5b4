"""The ways of summing that the benchmark compares, by the names of its tables."""

from __future__ import annotations

from commplan.planner.strategy.ops import Op


def quantised(wire: str, group: str, algorithm: str = "two_shot") -> Op:
    """A quantised all-reduce in a format."""
    if (wire, group) == ("int8", "token"):
        return Op("int8_all_reduce", algorithm=algorithm)
    return Op("quantized_all_reduce", algorithm=algorithm, wire_name=wire, scale_group=group)  # type: ignore[arg-type]


FORMATS = {
    "INT8 per token": quantised("int8", "token"),
    "INT8, groups of 64": quantised("int8", "64"),
    "INT8, groups of 128": quantised("int8", "128"),
    "FP8 per token": quantised("fp8_e4m3", "token"),
    "FP8, groups of 64": quantised("fp8_e4m3", "64"),
    "INT6, groups of 64": quantised("int6", "64"),
    "INT4 with two spikes, groups of 64": quantised("int4_spikes", "64"),
    "INT4, groups of 64": quantised("int4", "64"),
}
MEASURED = (
    "INT8 per token",
    "INT8, groups of 64",
    "FP8 per token",
    "INT6, groups of 64",
    "INT4 with two spikes, groups of 64",
)
"""Whose effects are measured place by place: those among which a plan chooses."""


def row_bytes(op: Op | None, width: int) -> float:
    """Bytes of a row on the wire; None: in bf16."""
    if op is None or op.wire is None:
        return 2.0 * width
    return op.wire.row_bytes(width)
