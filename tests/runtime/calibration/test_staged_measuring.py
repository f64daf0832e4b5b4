"""calibrate makes what carries messages through host memory once for each size of a group, for the largest of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import pytest
import torch

from commplan.runtime.calibration.composed import composed_call
from commplan.runtime.calibration.point_calls import Point
from commplan.runtime.calibration.staged import HostCarriers, is_staged, message_bytes
from commplan.runtime.ranks.groups import Group

from ..world import RankWorld
from .staged_measuring import measured_points

MODULE = "commplan.runtime.collectives.host_staging"
CPU = torch.device("cpu")
GROUPS = {size: Group("tp", None, size, 0) for size in (2, 4)}
FEW = "all_reduce.one_shot.1"
INT8, INT6 = "int8_all_reduce.gather.1", "quantized_all_reduce.gather.int6.64.4"


def point(name: str, rows: int, size: int = 2, impl: str = "host_staged_norm") -> Point:
    return Point(impl, name, size, "bf16", rows, 128)


class Staging:
    """Notes what was made and given back."""

    made: ClassVar[list[tuple[int, int]]] = []
    closed: ClassVar[list[int]] = []
    fails_over = 0

    def __init__(self, size: int) -> None:
        self.size = size

    @classmethod
    def make(cls, group: Group, device: torch.device, rows_bytes: int) -> Staging:
        if group.size == cls.fails_over:
            raise OSError("no room in /dev/shm")
        cls.made.append((group.size, rows_bytes))
        return cls(group.size)

    def close(self) -> None:
        self.closed.append(self.size)


@pytest.fixture
def staging(monkeypatch: pytest.MonkeyPatch) -> type[Staging]:
    module = ModuleType(MODULE)
    fresh = type("Fresh", (Staging,), {"made": [], "closed": []})
    module.HostStaging = fresh  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, MODULE, module)
    return fresh


def alone(mine: Any) -> list[Any]:
    return [mine]


def test_a_message_is_the_records_of_its_rows_or_the_rows_as_they_are() -> None:
    assert message_bytes(point(INT8, 8)) == 8 * (128 + 16)
    assert message_bytes(point(INT6, 8)) == 8 * (96 + 16)
    assert message_bytes(point("all_reduce.gather.2", 8)) == 8 * 128 * 2
    assert is_staged(point(INT8, 8)) and not is_staged(point(INT8, 8, impl="composed_norm"))


def test_one_is_made_for_each_size_of_a_group_with_room_for_its_largest_message(staging: type[Staging]) -> None:
    points = [point(INT8, 8), point(INT6, 64), point(INT8, 16, size=4), point(INT8, 999, impl="composed_norm")]
    carriers = HostCarriers(points, GROUPS, CPU, alone)
    assert staging.made == [(2, 64 * 112), (4, 16 * 144)]
    assert [carriers.of(each) is None for each in points] == [False, False, False, True]
    assert carriers.of(points[0]) is carriers.of(points[1]) is not carriers.of(points[2])
    carriers.close()
    assert sorted(staging.closed) == [2, 4]


def test_what_one_rank_cannot_make_no_rank_measures(staging: type[Staging]) -> None:
    points = [point(INT8, 8), point(INT8, 8, size=4)]
    staging.fails_over = 2
    carriers = HostCarriers(points, GROUPS, CPU, alone)
    assert carriers.left_out == {"host memory: no room in /dev/shm": 1}
    assert [carriers.has(each) for each in points] == [False, True]
    staging.fails_over = 0
    carriers = HostCarriers(points, GROUPS, CPU, lambda mine: [mine, "another rank's reason"])
    assert carriers.left_out == {"another rank's reason": 2}
    assert sorted(staging.closed) == [2, 4]


def test_few_rows_in_one_launch_have_one_of_their_own_by_width_and_type(
    staging: type[Staging], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, torch.dtype, int, int]] = []

    class OneShot:
        @classmethod
        def make(cls, group: Group, device: torch.device, dtype: torch.dtype, width: int, rows: int) -> OneShot:
            made.append((group.size, dtype, width, rows))
            return cls()

        def sum(self, x: torch.Tensor) -> tuple[int, ...]:
            return tuple(x.shape)

        def close(self) -> None:
            made.clear()

    monkeypatch.setattr("commplan.runtime.collectives.host_one_shot.HostOneShot", OneShot)
    few = [point(FEW, rows, impl=impl) for rows in (1, 64, 16) for impl in ("host_staged", "host_staged_norm")]
    carriers = HostCarriers([*few, point(INT8, 8)], GROUPS, CPU, alone)
    assert made == [(2, torch.bfloat16, 128, 64)]
    assert staging.made == [(2, 8 * 144)]
    assert carriers.of(few[0]) is carriers.of(few[-1]) is not carriers.of(point(INT8, 8))
    backend: Any = None
    assert composed_call(few[2], backend, GROUPS, CPU, carriers.of(few[2]))() == (64, 128)
    carriers.close()
    assert not made and staging.closed == [2]


def test_nothing_is_made_where_nothing_goes_that_way() -> None:
    carriers = HostCarriers([point(INT8, 8, impl="composed")], GROUPS, CPU, alone)
    assert not carriers.left_out and carriers.of(point(INT8, 8, impl="composed")) is None


def test_a_sum_is_handed_what_carries_its_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    class Sum:
        def __init__(self, *args: Any, **named: Any) -> None:
            seen.append((args[2:], named))

        def sum(self, x: torch.Tensor) -> str:
            return "sum"

        def sum_norm(self, *args: Any) -> str:
            return "sum_norm"

    monkeypatch.setattr("commplan.runtime.collectives.wire_sums.WireSum", Sum)
    backend: Any = None
    found = [
        composed_call(point(INT6, 8, impl=impl), backend, GROUPS, CPU, carrier)()
        for impl, carrier in (("host_staged", "carrier"), ("host_staged_norm", "carrier"), ("composed", None))
    ]
    assert found == ["sum", "sum_norm", "sum"]
    assert [named for _, named in seen] == [{"carrier": "carrier"}, {"carrier": "carrier"}, {}]
    assert all(args[1:] == (128, "gather", 4) for args, _ in seen)


@pytest.mark.slow
def test_ranks_of_a_host_measure_sums_of_records_and_of_rows_as_they_are(world: Callable[[int], RankWorld]) -> None:
    points: list[list[Any]] = [
        [impl, name, 2, "bf16", rows, 128, 0]
        for impl in ("host_staged", "host_staged_norm")
        for name in ("all_reduce.gather.4", INT6)
        for rows in (1, 33)
    ]
    for samples in world(2).run(measured_points, points):
        assert list(samples) == [" ".join(map(str, each)) for each in points]
        assert all(len(times) >= 5 and min(times) > 0 for times in samples.values())
