"""The error that a quantised sum is expected to make, as the record of its op has it."""

from __future__ import annotations

from ..strategy.ops import Op
from ..strategy.wire import over_the_others


def relative_rms_error(op: Op, group_size: int, outlier_ratio: float | None = None, width: int = 1) -> float:
    """e_b of the error budget: relative RMS error of one sum; 0 for ops that lose nothing.

    outlier_ratio  the largest value of a row of so many columns (`width`) over the row's RMS; None: rows are normal.
                   Then it is the error of the columns that the largest leaves room for, which is what a model loses
    """
    error = op.error
    if error is None:
        return 0.0
    return error.at(group_size, None if outlier_ratio is None else over_the_others(outlier_ratio, width))
