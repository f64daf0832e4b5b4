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
def test_sums_are_as_close_to_float64_as_their_type_and_alike_on_all_ranks(ranks: int) -> None:
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


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 8])
def test_it_compiles_for_a_hopper_gpu_tells_behind_a_fence_and_one_thread_looks(world: int) -> None:
    from commplan.runtime.kernels.op_launches import Site
    from commplan.runtime.kernels.peer_kernels import PeerKernels
    from commplan.runtime.kernels.symmetric import Workspace
    from commplan.runtime.ranks.groups import Group

    from .compiled_launches import compiled_code, hopper

    with hopper() as launches:
        state, error = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int32)
        space = Workspace(1 << 26, torch.zeros(world, dtype=torch.int64), None)
        group = Group("tp", None, world, 1)
        kernels = PeerKernels(group, space, None, state, error, site=Site("there", "off", 9, host_width=5120))
        for rows in (1, 64, 256):
            x = torch.empty(rows, 5120, dtype=torch.bfloat16, device="meta")
            weight = torch.empty(5120, dtype=torch.bfloat16, device="meta")
            kernels.all_reduce_norm(x, x, weight, 1e-6, "one_shot")
        names = {source.name for source, _, _ in launches}
        code = compiled_code(launches[0][0])
    assert names == {"host_one_shot_kernel"}
    assert [given[0] for _, _, given in launches] == [1, 64, 256]
    lines = [line.strip() for line in code.splitlines()]

    def places(what: str) -> list[int]:
        return [number for number, line in enumerate(lines) if what in line]

    rows_sent, met, fences = places("st.global"), places("bar.sync"), places("@first fence.acq_rel.sys")
    flags, looks, rows_read = (
        places("@first st.relaxed.sys"),
        places("ld.volatile.global.b64"),
        places("ld.volatile.global.v4"),
    )
    assert len(flags) == world - 1 and len(fences) == world
    last_sent = max(n for n in rows_sent if n < flags[0])
    assert any(last_sent < n < fences[0] for n in met), "all warps have written before one fences"
    assert [fence < flag for fence, flag in zip(fences, flags, strict=False)] == [True] * (world - 1)
    assert len(looks) == 2 and all(lines[n].startswith("@%p") for n in looks)  # not by all threads
    assert max(looks) < fences[-1] and any(fences[-1] < n < rows_read[0] for n in met)
    assert len(rows_read) >= world - 1
    assert "griddepcontrol" not in code


def test_what_host_memory_is_not_made_for_is_refused() -> None:
    from commplan.runtime.errors import RefusedError
    from commplan.runtime.kernels.op_launches import OpLaunches, Site, Task
    from commplan.runtime.kernels.symmetric import Workspace
    from commplan.runtime.ranks.groups import Group

    space = Workspace(1 << 20, torch.zeros(2, dtype=torch.int64), None)
    launches = OpLaunches(Group("tp", None, 2, 0), space, None, "off", Site("there", "off", 9, host_width=5120))
    assert launches.of("all_reduce.one_shot", Task(101, 5120, 101))[0].programs == 101
    for op, task, why in (
        ("all_reduce.one_shot", Task(4, 1024, 4), "rows of 5120 elements"),
        ("all_reduce.one_shot", Task(102, 5120, 102), "made for fewer rows"),
        ("all_reduce.two_shot", Task(4, 5120, 4), "in one shot"),
        ("reduce_scatter", Task(4, 5120, 2), "in one shot"),
        ("all_gather", Task(4, 5120, 8), "in one shot"),
    ):
        with pytest.raises(RefusedError, match=why):
            launches.of(op, task)
