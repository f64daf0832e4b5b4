"""Sums by one kernel through host memory, over all GPUs or two ranks on one: right, alike on all ranks, or NaN."""

from __future__ import annotations

from typing import Any

import pytest

from commplan.runtime.ranks.spawning import run_ranks

from . import machine, one_shot_ranks

pytestmark = pytest.mark.slow


def run(function: Any, *args: Any) -> list[Any]:
    return run_ranks(function, machine.ranks(), *args, timeout_s=300)


def test_sums_are_as_close_to_float64_as_their_type_and_alike_on_all_ranks() -> None:
    for found in run(one_shot_ranks.sums):
        assert len(found) == 3 * len(one_shot_ranks.SIZES)
        for name, (worst, same) in found.items():
            assert worst <= 2.0, (name, worst)
            assert same, name


def test_calls_of_any_size_by_ranks_that_are_late_are_right() -> None:
    assert run(one_shot_ranks.calls, 3000) == [0] * machine.ranks()


def test_graphs_in_any_order_in_turn_with_calls_are_right() -> None:
    assert run(one_shot_ranks.graphs, 1000) == [0] * machine.ranks()


@pytest.mark.parametrize("how", ["eager", "graph"])
def test_of_a_rank_that_is_too_late_no_number_is_wrong_and_all_ranks_say_so(how: str) -> None:
    *others, late = run(one_shot_ranks.late, how)
    for verdicts, said in (*others, late):
        assert verdicts[:2] == ["right"] * 2
        assert "wrong" not in verdicts
        assert verdicts[4:] == ["spoiled"] * 2
        assert "a peer has sent nothing" in said
    assert all(verdicts[2] == "spoiled" for verdicts, _ in others)


def test_of_a_rank_that_is_gone_all_others_say_so() -> None:
    *found, _ = run(one_shot_ranks.gone)
    for verdicts, said in found:
        assert verdicts == ["right"] * 2 + ["spoiled"] * 2
        assert "a peer has sent nothing" in said
