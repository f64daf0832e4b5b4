"""Our collectives on GPUs: right, the same on all ranks, repeatable, and never stuck.

The ranks start once for each way of launching, and run all that is claimed here in turn: starting them takes longer
than most of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commplan.runtime.ranks.spawning import run_ranks

from ..late_peers import Fault, every_fault, judge_faults, judge_wandering
from . import ahead_ranks, machine, pushed_ranks, ranks

pytestmark = pytest.mark.slow

_VARIABLE = "COMMPLAN_DEPENDENT_LAUNCH"
_SAID = os.environ.get(_VARIABLE)
ROWS = (
    (1024, "bf16", "normal"),
    (2112, "fp16", "outliers"),
    (2880, "bf16", "normal"),
    (5120, "bf16", "outliers"),
    (16384, "bf16", "normal"),
)
NOT_FINITE = (float("nan"), float("-inf"))
SAME_BITS = ((5120, 333), (7168, 1))

Found = Callable[[str], list[Any]]


def claims(folder: Path, faults: list[tuple[str, str, Fault]]) -> list[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
    """(name, function of a rank, what it is given), in the order in which they run."""
    return [
        ("default device", ranks.made_under_a_default_device, ()),
        *((f"every op {given}", ranks.every_op, given) for given in ROWS),
        *((f"same bits {given}", ranks.same_bits, given) for given in SAME_BITS),
        *((f"not finite {value}", ranks.not_finite, (value, 1300)) for value in NOT_FINITE),
        ("stress", ranks.stress, (10_000,)),
        ("graphs", ranks.graphs, (101,)),
        *((f"between {captured}", ranks.between_kernels, (400, captured)) for captured in (False, True)),
        ("pushed", pushed_ranks.pushed, (3000,)),
        ("pushed, narrow", pushed_ranks.narrow, (200,)),
        ("pushed in graphs", pushed_ranks.pushed_in_graphs, (50,)),
        ("reading ahead", ahead_ranks.reading_ahead, (100,)),
        ("compiled", ranks.compiled, ()),
        ("dead peer", ranks.dead_peer, ()),
        ("faulty", ranks.faulty, (str(folder), faults)),
        ("at random times", ranks.at_random_times, (100,)),
    ]


@pytest.fixture(scope="module", params=[_SAID] if _SAID else ["early", "off"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """By rank, what a claim's function gave: with dependent launch and without it, or as the environment says."""
    folder, world = tmp_path_factory.mktemp("faults"), machine.ranks()
    faults = every_fault(world, (0, 1, 2, 3))
    for name, _, _ in faults:
        (folder / name).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_VARIABLE, request.param)
        by_rank = run_ranks(ranks.in_turn, world, claims(folder, faults), timeout_s=600)
    return lambda name: [of_rank[name] for of_rank in by_rank]


def test_they_are_made_where_new_tensors_are_on_the_gpu(found: Found) -> None:
    assert all(found("default device"))


@pytest.mark.parametrize("given", ROWS)
def test_every_op_is_as_close_to_float64_as_its_types_allow(found: Found, given: tuple[int, str, str]) -> None:
    # One rounding costs epsilon / sqrt(3) at most, a norm has three. A symmetric INT8 row with outliers of a hundred
    # times the rest keeps of the sum what its scale resolves: 100 * 3.5 / 127 / sqrt(12) per rank against an RMS of
    # about 100 * sqrt(1 / 500); the shared bound is that of rows without outliers, times ten with them.
    _, dtype, kind = given
    epsilon = ranks.DTYPES[dtype][1]
    for errors in found(f"every op {given}"):
        for rows, by_op in errors:
            for op, error in by_op.items():
                allowed = (0.018 if kind == "normal" else 0.18) if op.startswith("int8") else 2.0 * epsilon
                assert error <= allowed, (op, rows, error, allowed)


@pytest.mark.parametrize("given", SAME_BITS)
def test_all_ranks_hold_the_same_bits(found: Found, given: tuple[int, int]) -> None:
    for same in found(f"same bits {given}"):
        assert all(same.values()), same


@pytest.mark.parametrize("value", NOT_FINITE)
def test_what_is_not_finite_stays_so_and_stays_in_its_row(found: Found, value: float) -> None:
    for by_op in found(f"not finite {value}"):
        assert all(spoilt and others for spoilt, others in by_op.values()), by_op


def test_ten_thousand_random_calls_of_skewed_ranks_are_all_right(found: Found) -> None:
    for of_rank in found("stress"):
        assert of_rank == {"wrong": [0] * 8, "grown": 0}


def test_graphs_replay_with_new_inputs_and_calls_between(found: Found) -> None:
    assert not any(found("graphs"))


@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
def test_a_call_reads_what_the_kernel_before_wrote_and_is_done_when_the_next_one_writes(
    found: Found, captured: bool
) -> None:
    assert not any(found(f"between {captured}"))


@pytest.mark.parametrize("how", ["pushed", "pushed, narrow", "pushed in graphs"])
def test_rows_that_are_pushed_while_they_are_made_give_the_bits_of_a_kernel_that_sends_them(
    found: Found, how: str
) -> None:
    assert found(how) == [0] * machine.ranks()


def test_sums_that_ask_for_the_next_weights_have_the_bits_of_those_that_do_not(found: Found) -> None:
    assert found("reading ahead") == [0] * machine.ranks()


def test_compiled_calls_give_what_eager_ones_give(found: Found) -> None:
    for same in found("compiled"):
        assert all(same.values()), same


def test_a_dead_peer_is_an_error_and_no_result(found: Found) -> None:
    *waited, _ = found("dead peer")
    for nothing_but_nan, text in waited:
        assert nothing_but_nan
        assert "a peer has sent nothing" in text


def test_who_gave_up_gives_nothing_but_nan_and_who_was_late_nothing_wrong(found: Found) -> None:
    judge_faults(every_fault(machine.ranks(), (0, 1, 2, 3)), found("faulty"))


def test_whenever_a_rank_is_late_no_result_is_finite_and_wrong(found: Found) -> None:
    judge_wandering(found("at random times"))
