"""Sums of our kernels with a scale for every group of columns, emulated: right, the same on all ranks, and defined for
rows that are not ordinary."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from commplan.runtime.kernels.peer_impls import KERNEL_GROUPS, KERNEL_WIRES
from commplan.runtime.ranks.spawning import run_ranks

from ...format_cases import How, bound_of
from . import emulated_formats as formats
from .emulated_peers import all_empty, make_buffers

pytest.importorskip("triton", reason="needs triton (Linux): the kernels run in its interpreter")
pytestmark = pytest.mark.slow
TWO_SHOTS: list[How] = [("two_shot", wire, "64") for wire in KERNEL_WIRES]


def run(function: Any, world: int, width: int, folder: Path, *args: Any) -> list[Any]:
    make_buffers(folder, world, 8, width)
    found = run_ranks(function, world, str(folder), *args, timeout_s=600)
    assert function is formats.dead_peer or all_empty(folder, world), "something is left behind for the next call"
    return found


def mixed(algorithms: tuple[str, ...]) -> list[How]:
    """Every format, each with another group."""
    return [(algorithms[n % len(algorithms)], w, KERNEL_GROUPS[n % 3]) for n, w in enumerate(KERNEL_WIRES)]


@pytest.mark.parametrize(
    ("world", "rows", "width", "dtype", "as_one_of_many", "hows"),
    [
        (2, 3, 176, torch.bfloat16, False, mixed(("gather",))),
        (2, 1, 1040, torch.float16, True, mixed(("two_shot",))),
        (3, 2, 80, torch.bfloat16, False, mixed(("two_shot", "gather"))),
    ],
)
def test_sums_in_every_format_are_as_close_to_float64_as_it_allows_and_the_same_bits_on_all_ranks(
    world: int, rows: int, width: int, dtype: torch.dtype, as_one_of_many: bool, hows: list[How], tmp_path: Path
) -> None:
    seed = random.randrange(1 << 30)
    first, *others = run(formats.sums, world, width, tmp_path, hows, rows, width, dtype, seed, as_one_of_many)
    for how, (worst, bits), *theirs in zip(hows, first, *others, strict=True):
        # Few values: an error scatters by a third around what is expected of many.
        assert worst <= 1.35 * bound_of(how), (how, seed)
        assert all(other[1] == bits for other in theirs), (how, seed)


def test_one_channel_at_300_sigma_leaves_all_columns_outside_of_its_group_as_they_were(tmp_path: Path) -> None:
    hows: list[How] = [("two_shot", "int8", "128"), ("two_shot", "fp8_e4m3", "128")]
    for found in run(formats.beside_one_channel, 2, 528, tmp_path, hows, 528):
        (int8, _), (fp8, _) = found
        assert int8 <= 0.012 and fp8 <= 0.035, found


@pytest.mark.parametrize(("value", "hows"), [(float("nan"), TWO_SHOTS[::2]), (float("-inf"), TWO_SHOTS[1::2])])
def test_what_is_not_finite_spoils_its_group_and_next_to_nothing_comes_to_nothing(
    value: float, hows: list[How], tmp_path: Path
) -> None:
    for found in run(formats.bad_input, 2, 176, tmp_path, hows, 176, value):
        assert found == [[] for _ in hows]


def test_a_dead_peer_is_nan_in_every_format(tmp_path: Path) -> None:
    for at_once, later in run(formats.dead_peer, 2, 64, tmp_path, [*TWO_SHOTS, ("gather", "int8", "128")]):
        assert at_once and later
