"""calibrate times sums around the library as plans run them: whole, in their format, in pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ..world import RankWorld
from .composed_measuring import measured_sums

pytest.importorskip("commplan.runtime.collectives.wire_sums")
pytestmark = pytest.mark.slow
NAMES = ("int8_all_reduce.gather.1", "int8_all_reduce.two_shot.2", "quantized_all_reduce.gather.int6.64.4")
POINTS: list[list[Any]] = [
    [impl, name, 2, dtype, 8, 128, 0]
    for impl in ("composed", "composed_norm")
    for name in NAMES
    for dtype in ("bf16", "fp32")
]


def test_every_sum_is_measured_on_all_ranks_with_the_norm_where_it_is_inside(world: Callable[[int], RankWorld]) -> None:
    for samples, calls in world(2).run(measured_sums, POINTS):
        assert list(samples) == [" ".join(map(str, point)) for point in POINTS]
        assert all(len(times) >= 5 and min(times) > 0 for times in samples.values())
        assert calls == {"sum", "sum_norm"}
