"""Wire formats of quantised sums, and the error that a sum in each of them is expected to make.

int8_all_reduce travels in INT8 with a scale for every row; ops of `quantized_all_reduce` say a format by its name here
and how many columns share a scale. Light on purpose: the runtime loads this module.
"""

from __future__ import annotations

from typing import Literal

from .wire import Error, Scales, Wire
from .words import ScaleGroup

INT8 = Wire("int8", "INT8", bits=8, carrier="int8", scales=Scales(bytes_each=4, dtype="fp32"), group_bytes=2)
"""Symmetric: scale = max|x| / 127."""

WIRES = {
    wire.name: wire
    for wire in (
        INT8,
        Wire("int6", "INT6", bits=6, carrier="int8", group_bytes=2),
        Wire("int4", "INT4", bits=4, carrier="int8", group_bytes=2),
        # Two values of each group beside it in bf16, a byte for the place of each, and the scale: 5 bits a value of 64.
        Wire("int4_spikes", "INT4 with spikes", bits=4, carrier="int8", group_bytes=8),
        Wire("fp8_e4m3", "FP8", bits=8, carrier="int8", group_bytes=2, needs_fp8=True),
    )
}
"""By name. Values of fewer bits than eight travel packed, in a type that libraries carry."""

_SCRIPT = "benchmarks/planner/wire_error.py"
# Normal rows of 5120, independent partials: the largest mean over 2 to 16 ranks; the script prints these lines. On rows
# with outliers a scale for the whole row does far worse (one column at 300 sigma: 0.18 for INT8), one for a group of
# columns does not outside of that group. A sensitivity file carries what is known of a model.
_MEASURED: dict[tuple[str, ScaleGroup], tuple[float, float]] = {
    ("int8", "token"): (0.0089, 0.0125),
    ("int8", "32"): (0.0053, 0.0076),
    ("int8", "64"): (0.0059, 0.0084),
    ("int8", "128"): (0.0065, 0.0091),
    ("int8", "256"): (0.0070, 0.0098),
    ("int6", "token"): (0.0363, 0.0512),
    ("int6", "32"): (0.0219, 0.0310),
    ("int6", "64"): (0.0243, 0.0344),
    ("int6", "128"): (0.0265, 0.0375),
    ("int6", "256"): (0.0286, 0.0404),
    ("int4", "token"): (0.1608, 0.2306),
    ("int4", "32"): (0.0971, 0.1378),
    ("int4", "64"): (0.1078, 0.1529),
    ("int4", "128"): (0.1175, 0.1668),
    ("int4", "256"): (0.1266, 0.1799),
    ("int4_spikes", "32"): (0.0696, 0.0986),
    ("int4_spikes", "64"): (0.0834, 0.1182),
    ("int4_spikes", "128"): (0.0954, 0.1354),
    ("int4_spikes", "256"): (0.1060, 0.1512),
    ("fp8_e4m3", "token"): (0.0265, 0.0375),
    ("fp8_e4m3", "32"): (0.0240, 0.0339),
    ("fp8_e4m3", "64"): (0.0251, 0.0355),
    ("fp8_e4m3", "128"): (0.0257, 0.0364),
    ("fp8_e4m3", "256"): (0.0261, 0.0369),
}
# How they grow with outliers (wire.Error), as `wire_error.py --law` fits it: within 8 % of what was measured with one
# column at 10 to 1000 times the others. What is not here grows by less than 2 % (FP8; a scale for a group of columns).
_SLOPES: dict[tuple[str, ScaleGroup], tuple[float, float]] = {
    ("int8", "token"): (0.0024, 0.0040),
    ("int6", "token"): (0.0095, 0.017),
    ("int4", "token"): (0.044, 0.087),
}
INT8_SLOPES = dict(zip(("gather", "two_shot"), _SLOPES["int8", "token"], strict=True))
_ALGORITHMS: tuple[Literal["gather"], Literal["two_shot"]] = ("gather", "two_shot")

WIRE_ERRORS: dict[tuple[str, ScaleGroup, str | None], Error] = {
    (wire, group, algorithm): Error({16: error}, _SCRIPT, slope)
    for (wire, group), errors in _MEASURED.items()
    for algorithm, error, slope in zip(_ALGORITHMS, errors, _SLOPES.get((wire, group), (0.0, 0.0)), strict=True)
}
"""By format, columns of a scale and algorithm. The errors of N independent partials add up as the partials do, so the
number of ranks hardly matters."""
