"""Sums of a few rows through host memory without a GPU: the contract of the kernel, for ranks of tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ..world import RankWorld
from . import one_shot_sums as one_shot

Worlds = Callable[[int], RankWorld]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("ranks", [2, 3])
def test_sums_are_as_close_to_float64_as_their_type_and_alike_on_all_ranks(ranks: int, world: Worlds) -> None:
    first, *others = world(ranks).run(one_shot.sums, ranks)
    assert len(first) == 3
    assert all(worst <= 2.0 for worst, _ in first)
    assert others == [first] * (ranks - 1)


def test_compiled_functions_make_the_same_calls(world: Worlds) -> None:
    assert world(2).run(one_shot.compiled, 2) == [[True] * 2] * 2


def test_peers_of_a_rank_that_hangs_give_it_up_and_no_wrong_number_leaves(world: Worlds) -> None:
    for verdicts, said in world(2).run(one_shot.hangs, 2, 2.0):
        assert verdicts == ["right"] * 2 + ["spoiled"] * 2
        assert "a peer has sent nothing" in said


def test_what_cannot_be_is_refused_on_all_ranks(world: Worlds) -> None:
    for many, other in world(2).run(one_shot.refusals, 2):
        assert "bytes were asked for" in many
        assert "rank 0 of its group does not receive through host memory what others send" in other
