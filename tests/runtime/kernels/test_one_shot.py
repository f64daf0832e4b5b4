"""Sums by one kernel over host memory, emulated: right, alike on all ranks, and of ranks that are late never wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from commplan.runtime.ranks.spawning import run_ranks

from ...late_peers import Fault, judge_faults, judge_wandering
from . import emulated_one_shot as emulated

pytest.importorskip("triton", reason="needs triton (Linux): the kernels run in its interpreter")
_BF16, _FP16 = torch.bfloat16, torch.float16


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_sums_are_as_close_to_float64_as_their_type_alike_on_all_ranks_and_leave_nothing(ranks: int) -> None:
    shapes = [(1, 80, _BF16), (4, 64, _FP16), (3, 1040, _BF16), (2, 1024, _BF16)]
    first, *others = run_ranks(emulated.sums, ranks, shapes, timeout_s=300)
    assert len(first) == len(shapes)
    for (worst, _), shape in zip(first, shapes, strict=True):
        assert worst <= 2.0, shape
    assert others == [first] * (ranks - 1)


@pytest.mark.slow
def test_compiled_functions_make_the_same_calls() -> None:
    assert run_ranks(emulated.compiled, 2, timeout_s=300) == [[True] * 3] * 2


@pytest.mark.slow
def test_more_rows_than_there_is_room_for_are_refused() -> None:
    for said in run_ranks(emulated.too_many, 2, 2, timeout_s=300):
        assert "it was made for fewer rows" in said


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "calls"), [(2, (0, 1, 2, 3)), (3, (1,))])
def test_who_gave_up_gives_nothing_but_nan_and_who_was_late_nothing_wrong(
    ranks: int, calls: tuple[int, ...], tmp_path: Path
) -> None:
    faults = [
        (f"{op} at {at}, {'dead' if dead else 'late'}", op, Fault(at, dead))
        for op in emulated.kinds(ranks)
        for at in calls
        for dead in (False, True)
    ]
    for name, _, _ in faults:
        (tmp_path / name).mkdir()
    judge_faults(faults, run_ranks(emulated.faulty, ranks, str(tmp_path), faults, timeout_s=600))


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_whenever_a_rank_is_late_no_result_is_finite_and_wrong(ranks: int) -> None:
    judge_wandering(run_ranks(emulated.at_random_times, ranks, 12, timeout_s=600))


def test_of_more_rows_there_are_fewer_looks_since_each_takes_longer() -> None:
    from commplan.runtime.kernels.op_launches import OpLaunches, Site, Task
    from commplan.runtime.kernels.symmetric import Workspace
    from commplan.runtime.ranks.groups import Group

    space = Workspace(1 << 26, torch.zeros(2, dtype=torch.int64), None)

    def looks(site: Site, rows: int, norm: bool) -> int:
        launches = OpLaunches(Group("tp", None, 2, 0), space, None, "off", site)
        found: int = launches.of("all_reduce.one_shot", Task(rows, 5120, rows, norm))[0].numbers[-1]
        return found

    far = Site("there", "off", 1 << 24, 1 << 15)
    for norm in (False, True):
        by_rows = {rows: looks(far, rows, norm) for rows in (1, 3, 64, 256)}
        assert by_rows == {1: 1 << 24, 3: 1 << 24, 64: (1 << 24) // 20, 256: (1 << 24) // 80}
        assert {looks(Site(), rows, norm) for rows in by_rows} == {1 << 26}
    assert looks(Site("there", "off", 1, 1 << 15), 256, True) == 1
