"""Sums of rows that travel as they are: torch's in fp32 and in the order of ranks, rounded once, to the bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ..world import RankWorld
from . import row_sums

Worlds = Callable[[int], RankWorld]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("staged", [True, False])
@pytest.mark.parametrize("ranks", [2, 3])
def test_sums_have_the_bits_of_torch_in_any_number_of_pieces(ranks: int, staged: bool, world: Worlds) -> None:
    for found in world(ranks).run(row_sums.beside_torch, ranks, staged):
        assert found == dict.fromkeys(found, True)
        assert len(found) == len(row_sums.DTYPES) * len(row_sums.SHAPES) * 4


def test_a_residual_that_may_be_overwritten_is_none_is_needed_and_compiled_functions_call_it(world: Worlds) -> None:
    assert world(2).run(row_sums.other_ways, 2) == [[True] * 5] * 2


def test_a_rank_does_not_copy_its_own_rows(world: Worlds) -> None:
    assert world(3).run(row_sums.own_place, 3) == [[True] * 3] * 3


@pytest.mark.parametrize("ranks", [2, 3])
def test_what_has_not_come_is_nan(ranks: int, world: Worlds) -> None:
    assert world(ranks).run(row_sums.not_come, ranks) == [[True] * 2] * ranks


def test_they_are_refused_in_two_shots(world: Worlds) -> None:
    for said in world(2).run(row_sums.in_two_shots, 2):
        assert "rows as they are are gathered alone" in said
