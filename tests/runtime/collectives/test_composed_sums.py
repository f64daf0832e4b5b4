"""Quantised sums around the library: right in every format, the same on all ranks, however the rows are cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ...wire_cases import FORMATS
from ..world import RankWorld
from . import composed_sums as composed

Worlds = Callable[[int], RankWorld]
RANKS = (2, 4)
ALGORITHMS = ("gather", "two_shot")
SHAPES = [(1, 64), (7, 200), (5, 96), (12, 512)]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("ranks", RANKS)
def test_every_format_is_as_close_to_float64_as_its_steps_and_alike_on_all_ranks(
    ranks: int, algorithm: str, world: Worlds
) -> None:
    first, *others = world(ranks).run(composed.excesses, ranks, algorithm, SHAPES)
    assert len(first) == len(FORMATS) * len(SHAPES)
    for name, (excess, norm_error, _) in first.items():
        assert excess <= 1.0, (name, excess)
        assert norm_error <= 2.0, (name, norm_error)
    assert all(other == first for other in others)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_pieces_cover_the_rows_once_and_change_no_bit(algorithm: str, world: Worlds) -> None:
    for found in world(4).run(composed.in_pieces, 4, algorithm, (1, 2, 3, 64)):
        assert len({bits for _, bits in found}) == 1
        for cut, _ in found:
            assert [row for first, rows in cut for row in range(first, first + rows)] == list(range(11))
        assert [len(cut) for cut, _ in found] == ([1, 2, 3, 11] if algorithm == "gather" else [1, 2, 3, 3])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_spoils_its_group_and_no_other(value: float, world: Worlds) -> None:
    for found in world(2).run(composed.not_finite, 2, "two_shot", value):
        assert found == dict.fromkeys(found, True)
        assert len(found) == len(FORMATS)


def test_of_subnormal_values_nothing_is_left(world: Worlds) -> None:
    for found in world(2).run(composed.next_to_nothing, 2):
        assert found == dict.fromkeys(found, True)


def test_a_residual_that_may_be_overwritten_is_and_none_is_needed(world: Worlds) -> None:
    assert world(2).run(composed.overwriting, 2) == [[True] * 4] * 2
