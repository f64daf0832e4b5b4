"""Sums of our kernels with a scale for every group of columns, emulated: right, the same on all ranks, and defined for
rows that are not ordinary.

The ranks start once for all that is claimed of so many: starting them takes longer than most of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
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
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("formats")]  # one worker starts the ranks
TWO_SHOTS: list[How] = [("two_shot", wire, "64") for wire in KERNEL_WIRES]
MIXED: list[tuple[str, str]] = [(wire, KERNEL_GROUPS[n % 3]) for n, wire in enumerate(KERNEL_WIRES)]
"""Every format, each with another group."""
Sums = tuple[int, int, torch.dtype, bool, list[How]]
SUMS: dict[tuple[int, str], Sums] = {
    (2, "gather"): (3, 176, torch.bfloat16, False, [("gather", *of) for of in MIXED]),
    (2, "two_shot"): (1, 1040, torch.float16, True, [("two_shot", *of) for of in MIXED]),
    (3, "both"): (2, 80, torch.bfloat16, False, [("two_shot", "int6", "64"), ("gather", "int4_spikes", "64")]),
}
"""By ranks and algorithm: rows, width, type, whether each row is cut as one of many, formats."""
NOT_FINITE = {float("nan"): TWO_SHOTS[::2], float("-inf"): TWO_SHOTS[1::2]}
SEED = random.randrange(1 << 30)
Found = Callable[[int, str], list[Any]]


def claims(world: int) -> list[tuple[str, int, Callable[..., Any], tuple[Any, ...]]]:
    """(name, width, function of a rank, what it is given) of so many ranks; the dead peer comes last."""
    sums = [
        (algorithm, width, formats.sums, (hows, rows, width, dtype, SEED, as_one_of_many))
        for (ranks, algorithm), (rows, width, dtype, as_one_of_many, hows) in SUMS.items()
        if ranks == world
    ]
    if world != 2:
        return sums
    beside: list[How] = [("two_shot", "int8", "128"), ("two_shot", "fp8_e4m3", "128")]
    return [
        *sums,
        ("one channel", 528, formats.beside_one_channel, (beside, 528)),
        *((str(value), 80, formats.bad_input, (hows, 80, value)) for value, hows in NOT_FINITE.items()),
        ("dead peer", 64, formats.dead_peer, ([*TWO_SHOTS, ("gather", "int8", "128")],)),
    ]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """By rank, what a claim's function gave; the ranks of a world start when the first of its claims is asked for."""
    done: dict[int, list[dict[str, Any]]] = {}

    def ask(world: int, name: str) -> list[Any]:
        if world not in done:
            done[world] = ran(world, tmp_path_factory.mktemp(f"ranks{world}"))
        return [of_rank[name] for of_rank in done[world]]

    return ask


def ran(world: int, folder: Path) -> list[dict[str, Any]]:
    given = []
    for name, width, function, arguments in claims(world):
        (folder / name).mkdir()
        make_buffers(folder / name, world, 8, width)
        given.append((name, function, (str(folder / name), *arguments)))
    by_rank = run_ranks(formats.in_turn, world, given, timeout_s=600)
    for name, *_ in given:
        assert name == "dead peer" or all_empty(folder / name, world), "something is left behind for the next call"
    return by_rank


@pytest.mark.parametrize(("world", "algorithm"), SUMS)
def test_sums_in_every_format_are_as_close_to_float64_as_it_allows_and_the_same_bits_on_all_ranks(
    world: int, algorithm: str, found: Found
) -> None:
    first, *others = found(world, algorithm)
    for how, (worst, bits), *theirs in zip(SUMS[world, algorithm][-1], first, *others, strict=True):
        # Few values: an error scatters by a third around what is expected of many.
        assert worst <= 1.35 * bound_of(how), (how, SEED)
        assert all(other[1] == bits for other in theirs), (how, SEED)


def test_one_channel_at_300_sigma_leaves_all_columns_outside_of_its_group_as_they_were(found: Found) -> None:
    for (int8, _), (fp8, _) in found(2, "one channel"):
        assert int8 <= 0.012 and fp8 <= 0.035


@pytest.mark.parametrize("value", NOT_FINITE)
def test_what_is_not_finite_spoils_its_group_and_next_to_nothing_comes_to_nothing(value: float, found: Found) -> None:
    for wrong in found(2, str(value)):
        assert wrong == [[] for _ in NOT_FINITE[value]]


def test_a_dead_peer_is_nan_in_every_format(found: Found) -> None:
    for at_once, later in found(2, "dead peer"):
        assert at_once and later
