"""Sums through host memory by copy engines, over all GPUs or two ranks on one: right, alike on all ranks, or NaN."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from commplan.runtime.ranks.spawning import run_ranks

from ..wire_cases import FORMATS
from . import machine, staged_ranks

pytestmark = pytest.mark.slow


def run(function: Any, *args: Any) -> list[Any]:
    return run_ranks(function, machine.ranks(), *args, timeout_s=300)


def reach_each_other() -> bool:
    ranks = range(machine.gpus())
    return all(torch.cuda.can_device_access_peer(a, b) for a in ranks for b in ranks if a != b)


def test_every_format_is_as_close_to_float64_as_its_steps_and_alike_on_all_ranks() -> None:
    for found in run(staged_ranks.sums):
        assert len(found) == 3 * len(FORMATS)
        for name, (excess, norm_error, same) in found.items():
            assert excess <= 1.0, (name, excess)
            assert norm_error <= 2.0, (name, norm_error)
            assert same, name


def test_of_rows_as_they_are_the_sum_is_that_in_fp32_to_the_bit_and_alike_on_all_ranks() -> None:
    for found in run(staged_ranks.rows_as_they_are):
        assert len(found) == 2 * 4 * 4
        for name, (exact, norm_error, same) in found.items():
            assert exact, name
            assert norm_error <= 2.0, (name, norm_error)
            assert same, name


@pytest.mark.skipif(not reach_each_other(), reason="our own kernels read the memory of peers")
def test_of_rows_as_they_are_sums_are_those_of_our_own_kernel_in_one_shot() -> None:
    for found in run(staged_ranks.beside_one_shot):
        assert len(found) == 2 * 3
        for name, (same, off) in found.items():
            assert same, name
            assert off <= 1.0, (name, off)  # sums of squares may add up in another order


def test_calls_of_any_size_by_ranks_that_are_late_are_right() -> None:
    assert run(staged_ranks.calls, 2000) == [0] * machine.ranks()


@pytest.mark.parametrize("wire", ["int8", None])
def test_graphs_in_any_order_in_turn_with_calls_are_right(wire: str | None) -> None:
    assert run(staged_ranks.graphs, 500, wire) == [0] * machine.ranks()


@pytest.mark.parametrize("wire", ["int8", None])
def test_rows_may_be_written_just_before_and_overwritten_just_behind(wire: str | None) -> None:
    assert run(staged_ranks.after_other_kernels, 200, wire) == [0] * machine.ranks()


@pytest.mark.parametrize("how", ["eager", "graph"])
def test_of_a_rank_that_is_too_late_no_number_is_wrong_and_all_ranks_say_so(how: str) -> None:
    for verdicts, said in run(staged_ranks.late, how):
        assert verdicts[:2] == ["right"] * 2
        assert "wrong" not in verdicts
        assert verdicts[3:] == ["spoiled"] * 3
        assert "a peer has sent nothing" in said


@pytest.mark.parametrize("pieces", [1, 4])
def test_of_a_rank_that_is_gone_all_others_say_so(pieces: int) -> None:
    *found, _ = run(staged_ranks.gone, pieces)
    for verdicts, said in found:
        assert verdicts == ["right"] * 2 + ["spoiled"] * 2
        assert "a peer has sent nothing" in said


def test_what_has_not_come_is_nan_in_every_format_and_of_rows_as_they_are() -> None:
    for found in run(staged_ranks.not_come):
        assert found == dict.fromkeys(found, True)
        assert len(found) == len(FORMATS) + 2
