"""Sums with a scale for every group of columns on GPUs: as many ranks as the machine has GPUs, two at least."""

from __future__ import annotations

import random

import pytest
import torch

from commplan.runtime.ranks.spawning import run_ranks

from . import format_ranks as ranks

pytestmark = pytest.mark.slow
_MOST_RANKS = 8


def run(function, *args):
    return run_ranks(function, min(_MOST_RANKS, max(2, torch.cuda.device_count())), *args, timeout_s=300)


@pytest.mark.parametrize(
    ("width", "sizes", "turn"), [(5120, (1, 257, 1000), 0), (7168, (3, 600), 1), (2896, (64, 301), 2)]
)
def test_every_format_is_as_close_to_float64_as_it_allows_and_the_same_bits_on_all_ranks(
    width: int, sizes: tuple[int, ...], turn: int
) -> None:
    seed = random.randrange(1 << 30)
    for found in run(ranks.sums, width, sizes, turn, seed):
        for how, rows, off, same in found:
            assert off <= 1.0 and same, (how, rows, off, same, seed)


@pytest.mark.parametrize("width", [5120, 7168])
def test_one_channel_at_300_sigma_leaves_all_columns_outside_of_its_group_as_they_were(width: int) -> None:
    for found in run(ranks.beside_one_channel, width):
        for how, (outside, inside) in found.items():
            print(f"{width}: {' '.join(how)}: outside {outside:.4f}, inside {inside:.4f}")
        assert found["two_shot", "int8", "128"][0] <= 0.012
        assert found["two_shot", "fp8_e4m3", "128"][0] <= 0.035


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_what_is_not_finite_spoils_its_group_and_next_to_nothing_comes_to_nothing(value: float) -> None:
    for found in run(ranks.bad_input, 2896, value):
        assert not {how: wrong for how, wrong in found.items() if wrong}


def test_two_thousand_random_calls_of_skewed_ranks_in_all_formats_are_right() -> None:
    assert set(run(ranks.taking_turns, 2000)) == {0}
