"""Our collectives, emulated: right for any number of ranks, the same on all of them, and never stuck."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from commplan.runtime.ranks.spawning import run_ranks

from . import emulated_peers as emulated

pytest.importorskip("triton", reason="needs triton (Linux): the kernels run in its interpreter")
pytestmark = pytest.mark.slow
_MOST_ROWS = 8


def run(function: Any, world: int, width: int, folder: Path, *args: Any) -> list[Any]:
    emulated.make_buffers(folder, world, _MOST_ROWS, width)
    return run_ranks(function, world, str(folder), *args, timeout_s=600)


@pytest.mark.parametrize(
    ("world", "sizes", "width", "dtype"),
    [
        (2, [1, 4, 3], 80, torch.bfloat16),
        (3, [2], 64, torch.float16),
        (4, [5], 48, torch.bfloat16),
        (2, [3], 2048, torch.float16),
    ],
)
def test_every_op_is_as_close_to_float64_as_its_types_allow(
    world: int, sizes: list[int], width: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    epsilon = torch.finfo(dtype).eps
    for errors in run(emulated.every_op, world, width, tmp_path, sizes, width, dtype):
        for rows, by_op in errors:
            assert len(by_op) == {2: 22, 3: 22, 4: 28}[world]
            for op, error in by_op.items():
                # One rounding costs up to epsilon / 2 of a value, a norm has three; INT8 as in test_int8_boundary.py.
                assert error <= (0.02 if op.startswith("int8") else 2.0 * epsilon), (op, rows, error)
    assert emulated.all_empty(tmp_path, world), "a call has left something behind for the next one"


@pytest.mark.parametrize("as_one_of_many", [False, True])
def test_a_row_of_several_parts_is_summed_and_normed_as_a_whole(as_one_of_many: bool, tmp_path: Path) -> None:
    for errors in run(emulated.every_op, 2, 1040, tmp_path, [3], 1040, torch.bfloat16, as_one_of_many):
        for rows, by_op in errors:
            for op, error in by_op.items():
                assert error <= (0.02 if op.startswith("int8") else 2.0 * torch.finfo(torch.bfloat16).eps), (op, rows)


def test_all_ranks_hold_the_same_bits(tmp_path: Path) -> None:
    first, *others = run(emulated.bits, 3, 80, tmp_path, 80)
    assert len(first) == 7
    assert first[0] == first[3], "the algorithms differ"
    assert others == [first, first]


def test_a_residual_that_may_be_overwritten_is_and_nothing_else_changes(tmp_path: Path) -> None:
    for found in run(emulated.overwriting, 2, 64, tmp_path):
        assert len(found) == 5
        assert all(right for _, right in found), found


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_what_is_not_finite_stays_so_and_stays_in_its_row(value: float, tmp_path: Path) -> None:
    for found in run(emulated.not_finite, 2, 64, tmp_path, value):
        assert found == [True] * 4


def test_of_next_to_nothing_int8_leaves_nothing(tmp_path: Path) -> None:
    first, other = run(emulated.next_to_nothing, 2, 64, tmp_path)
    assert [right for right, _ in first] == [True, True]
    assert other == first


def test_a_dead_peer_is_an_error_and_no_result(tmp_path: Path) -> None:
    (nothing_but_nan, text), _ = run(emulated.dead_peer, 2, 64, tmp_path)
    assert nothing_but_nan
    assert "a peer has sent nothing" in text


def test_compiled_functions_make_the_same_calls(tmp_path: Path) -> None:
    for found in run(emulated.compiled, 2, 64, tmp_path):
        assert found == [True] * 3
