"""A rank that is late or dead, emulated: on no rank is a result finite and wrong, and who has given up stays so."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from commplan.runtime.ranks.spawning import run_ranks

from ...late_peers import ROWS, WIDTH, every_fault, judge_faults, judge_wandering, kinds
from . import emulated_peers as emulated

pytest.importorskip("triton", reason="needs triton (Linux): the kernels run in its interpreter")
pytestmark = pytest.mark.slow
_SEEDS = 12


def run(function: Any, world: int, folder: Path, names: list[str], *args: Any) -> list[Any]:
    for name in names:
        (folder / name).mkdir()
        emulated.make_buffers(folder / name, world, ROWS, WIDTH)
    return run_ranks(function, world, str(folder), *args, timeout_s=600)


@pytest.mark.parametrize(("world", "calls"), [(2, (0, 1, 2, 3)), (3, (1,))])
def test_who_gave_up_gives_nothing_but_nan_and_who_was_late_nothing_wrong(
    world: int, calls: tuple[int, ...], tmp_path: Path
) -> None:
    assert len(kinds(world)) == {2: 17, 3: 15}[world]
    faults = every_fault(world, calls)
    judge_faults(faults, run(emulated.faulty, world, tmp_path, [name for name, _, _ in faults], faults))


def test_with_two_groups_of_two_ranks_a_pair_gives_nothing_wrong_either(tmp_path: Path) -> None:
    faults = every_fault(4, (1,), of=", groups")
    assert len(faults) == 8
    judge_faults(faults, run(emulated.faulty, 4, tmp_path, [name for name, _, _ in faults], faults))


@pytest.mark.parametrize("world", [2, 3])
def test_whenever_a_rank_is_late_no_result_is_finite_and_wrong(world: int, tmp_path: Path) -> None:
    judge_wandering(run(emulated.at_random_times, world, tmp_path, [str(seed) for seed in range(_SEEDS)], _SEEDS))


def test_a_rank_stopped_inside_a_call_finds_no_row_of_a_later_one(tmp_path: Path) -> None:
    """Of one row in two shots ranks 1 and 2 own nothing: they hear of each other through rank 0, which has given up."""
    emulated.make_buffers(tmp_path, 3, 1, 64)
    for rank, (first, *later) in enumerate(run_ranks(emulated.stopped_inside, 3, str(tmp_path), timeout_s=300)):
        assert first == [pytest.approx(6.0, rel=0.03)], rank
        assert all(math.isnan(value) for result in later[rank == 2 :] for value in result), rank
