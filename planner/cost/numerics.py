"""The error that a quantised sum is expected to make, as the record of its op has it."""

from __future__ import annotations

from ..strategy.ops import Op


def relative_rms_error(op: Op, group_size: int) -> float:
    """e_b of the error budget: relative RMS error of one sum; 0 for ops that lose nothing."""
    error = op.error
    return 0.0 if error is None else error.at(group_size)
