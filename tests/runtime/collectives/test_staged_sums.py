"""Sums through host memory: the bits of those by the library, in any order of calls; late and dead ranks spoil them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from commplan.runtime.ranks.spawning import run_ranks

from ...wire_cases import FORMATS
from ..world import RankWorld
from . import staged_sums as staged

Worlds = Callable[[int], RankWorld]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("ranks", [2, 3])
def test_sums_have_the_bits_of_those_by_the_library_in_any_number_of_pieces(ranks: int, world: Worlds) -> None:
    for found in world(ranks).run(staged.beside_the_library, ranks):
        assert found == dict.fromkeys(found, True)
        assert len(found) == 3 * len(FORMATS)


@pytest.mark.parametrize("ranks", [2, 3])
def test_calls_of_any_size_in_any_order_of_halves_are_right_by_ranks_that_are_late(ranks: int, world: Worlds) -> None:
    assert world(ranks).run(staged.in_any_order, ranks, 300, 7) == [0] * ranks


def test_a_half_is_kept_until_all_have_read_it(world: Worlds) -> None:
    assert world(2).run(staged.read_late, 2, True) == [[True] * 5] * 2


def test_without_acknowledgements_it_would_not_be(world: Worlds) -> None:
    found = world(2).run(staged.read_late, 2, False)
    assert not all(found[1])


def test_a_sum_that_broke_off_is_not_taken_for_the_next(world: Worlds) -> None:
    assert world(2).run(staged.broken_off, 2) == [[True] * 6] * 2


@pytest.mark.parametrize(("ranks", "pieces"), [(2, 1), (2, 4), (3, 2)])
def test_peers_of_a_rank_that_hangs_give_it_up_and_no_wrong_number_leaves(
    ranks: int, pieces: int, world: Worlds
) -> None:
    for verdicts, said, longest in world(ranks).run(staged.hangs, ranks, pieces, 2.0):
        assert verdicts[:2] == ["right"] * 2
        assert verdicts[2:] == ["spoiled"] * 3
        assert "a peer has sent nothing" in said
        assert longest < 1.5


@pytest.mark.parametrize(("ranks", "pieces"), [(2, 1), (3, 4)])
def test_peers_of_a_rank_whose_process_ends_give_it_up(ranks: int, pieces: int) -> None:
    *found, gone = run_ranks(staged.ends, ranks, ranks, pieces)
    assert gone == (["right"] * 2, "")
    for verdicts, said in found:
        assert verdicts == ["right"] * 2 + ["spoiled"] * 2
        assert "a peer has sent nothing" in said


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_that_are_late_by_about_the_patience_of_others_have_right_numbers_or_none(
    ranks: int, world: Worlds
) -> None:
    calls = [call for seed in range(6) for found in world(ranks).run(staged.wandering, ranks, seed) for call in found]
    assert not any("wrong" in call for call in calls)
    assert any("spoiled" in call for call in calls) and any("right" in call for call in calls)


def test_what_one_who_has_given_up_writes_over_its_message_is_not_taken(world: Worlds) -> None:
    first, second = world(2).run(staged.overwritten, 2)
    assert first == ["right"] * 2 + ["spoiled"] * 2
    assert second == ["right"] + ["spoiled"] * 3


def test_what_has_not_come_is_nan_in_every_format(world: Worlds) -> None:
    for found in world(2).run(staged.spoiled, 2):
        assert found == dict.fromkeys(found, True)
        assert len(found) == len(FORMATS)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("nobody", "rank 0 does not find the memory of rank 1"),
        ("another", "rank 0 does not find the memory of rank 1"),
        ("token", "rank 0 reads in the memory of rank 1 what that has not written"),
        ("full", "rank 1 cannot make memory to share (No space left on device)"),
    ],
)
def test_ranks_that_share_no_memory_are_refused_alike_with_the_way_out(what: str, reason: str, world: Worlds) -> None:
    first, second = world(2).run(staged.elsewhere, 2, what)
    assert reason in first
    assert "plan with composed_norm" in first
    assert second == first


def test_it_is_refused_where_a_message_that_is_tried_does_not_come(world: Worlds) -> None:
    for said in world(2).run(staged.not_received, 2):
        assert "does not receive through host memory what others send; plan with composed_norm" in said


def test_what_is_refused_and_that_the_next_sum_is_right(world: Worlds) -> None:
    for two_shot, pieces, rows, alone, large, next_sum in world(2).run(staged.refusals, 2):
        assert "messages are carried for gather alone" in two_shot
        assert "up to 8 are carried" in pieces
        assert "were asked for" in rows
        assert "two ranks at least" in alone
        assert "less than 2 GiB" in large
        assert next_sum == "right"
