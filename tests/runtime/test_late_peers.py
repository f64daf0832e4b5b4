"""A rank that is late or dead, emulated: on no rank is a result finite and wrong, and who has given up stays so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from commplan.runtime.launch import run_ranks

from ..late_peers import OWN_ROWS_STAY, ROWS, WIDTH, Fault, kinds
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
    faults = [
        (f"{op} at {at}, {'dead' if dead else 'late'}", op, Fault(at, dead))
        for op in kinds(world)
        for at in calls
        for dead in (False, True)
    ]
    assert len({op for _, op, _ in faults}) == {2: 13, 3: 11}[world]
    *waited, late = run(emulated.faulty, world, tmp_path, [name for name, _, _ in faults], faults)
    for (name, op, fault), of_late, *of_others in zip(faults, late, *waited, strict=True):
        for _, verdicts, said in of_others:
            first = "right or NaN" if op in OWN_ROWS_STAY else "NaN"
            assert verdicts == ["right"] * fault.at + [first] + ["NaN"] * (fault.going_on + 1), name
            assert "a peer has sent nothing" in said, name
        _, verdicts, said = of_late
        assert verdicts[: fault.at] == ["right"] * fault.at, name
        if not fault.dead:
            # Its peers had sent rows of this call. Of three ranks those may be rows for others than the late one.
            assert verdicts[fault.at] in ("right", "right or NaN", *["NaN"] * (world - 2)), name
            assert verdicts[fault.at + 1 :] == ["NaN"] * (fault.going_on - 1), name
            assert "a peer has sent nothing" in said, name


@pytest.mark.parametrize("world", [2, 3])
def test_whenever_a_rank_is_late_no_result_is_finite_and_wrong(world: int, tmp_path: Path) -> None:
    seen = set()
    for of_rank in run(emulated.at_random_times, world, tmp_path, [str(seed) for seed in range(_SEEDS)], _SEEDS):
        for verdicts in of_rank:
            assert "wrong" not in verdicts, verdicts
            after = verdicts[next((n for n, v in enumerate(verdicts) if v != "right"), len(verdicts)) :]
            assert set(after[1:]) <= {"NaN"}, verdicts
            seen |= set(verdicts)
    assert {"right", "NaN"} <= seen, "patience is such that both happen"
