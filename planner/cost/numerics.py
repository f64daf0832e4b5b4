"""Expected relative RMS error of one quantised sum: ||quantised - exact|| / ||exact|| over the rows.

Measured by `benchmarks/planner/int8_error.py` (float64 reference, normal rows of 5120, independent partials); the
script prints this table. With independent partials the errors of N ranks add up like the partials do, so the gather's
error hardly depends on N; two_shot quantises the sum once more. Rows with outliers do worse, up to the bound
amax/127/sqrt(12) per rank: a sensitivity file carries what is known of a model.
"""

from __future__ import annotations

from bisect import bisect_left

from ..ops import Op

_SIZES = (2, 4, 8, 16)
_RELATIVE_RMS = {
    "gather": (0.0088, 0.0088, 0.0088, 0.0088),
    "two_shot": (0.0124, 0.0124, 0.0124, 0.0124),
}


def relative_rms_error(op: Op, group_size: int) -> float:
    """e_b of the error budget; 0 for ops that lose nothing. Sizes between measured ones take the larger one's."""
    if op.algorithm is None or group_size == 1:
        return 0.0
    table = _RELATIVE_RMS[op.algorithm]
    return table[min(bisect_left(_SIZES, group_size), len(table) - 1)]
