"""Our collectives on GPUs: right, the same on all ranks, repeatable, and never stuck."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from commplan.runtime.ranks.spawning import run_ranks

from ..late_peers import every_fault, judge_faults, judge_wandering
from . import ranks

pytestmark = pytest.mark.slow


_VARIABLE = "COMMPLAN_DEPENDENT_LAUNCH"
_SAID = os.environ.get(_VARIABLE)


@pytest.fixture(autouse=True, params=[_SAID] if _SAID else ["early", "off"])
def dependent(request, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs with dependent launch and without it, or as the environment says."""
    monkeypatch.setenv(_VARIABLE, request.param)


def run(function, *args):
    return run_ranks(function, 2, *args, timeout_s=300)


def test_they_are_made_where_new_tensors_are_on_the_gpu() -> None:
    assert run(ranks.made_under_a_default_device) == [True, True]


@pytest.mark.parametrize(
    ("width", "dtype", "kind"),
    [
        (1024, "bf16", "normal"),
        (2112, "fp16", "outliers"),
        (2880, "bf16", "normal"),
        (5120, "bf16", "outliers"),
        (16384, "bf16", "normal"),
    ],
)
def test_every_op_is_as_close_to_float64_as_its_types_allow(width: int, dtype: str, kind: str) -> None:
    # One rounding costs epsilon / sqrt(3) at most, a norm has three. A symmetric INT8 row with outliers of a hundred
    # times the rest keeps of the sum what its scale resolves: 100 * 3.5 / 127 / sqrt(12) per rank against an RMS of
    # about 100 * sqrt(1 / 500); the shared bound is that of rows without outliers, times ten with them.
    epsilon = ranks.DTYPES[dtype][1]
    for errors in run(ranks.every_op, width, dtype, kind):
        for rows, by_op in errors:
            for op, error in by_op.items():
                allowed = (0.018 if kind == "normal" else 0.18) if op.startswith("int8") else 2.0 * epsilon
                assert error <= allowed, (op, rows, error, allowed)


def test_all_ranks_hold_the_same_bits() -> None:
    for width, rows in ((5120, 333), (7168, 1)):
        for same in run(ranks.same_bits, width, rows):
            assert all(same.values()), same


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("at", [1300])
def test_what_is_not_finite_stays_so_and_stays_in_its_row(value: float, at: int) -> None:
    for found in run(ranks.not_finite, value, at):
        assert all(spoilt and others for spoilt, others in found.values()), found


def test_ten_thousand_random_calls_of_skewed_ranks_are_all_right() -> None:
    for found in run(ranks.stress, 10_000):
        assert found == {"wrong": [0] * 8, "grown": 0}


def test_graphs_replay_with_new_inputs_and_calls_between() -> None:
    assert run(ranks.graphs, 101) == [0, 0]


@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
def test_a_call_reads_what_the_kernel_before_wrote_and_is_done_when_the_next_one_writes(captured: bool) -> None:
    assert run(ranks.between_kernels, 400, captured) == [0, 0]


def test_compiled_calls_give_what_eager_ones_give() -> None:
    for found in run(ranks.compiled):
        assert all(found.values()), found


def test_a_dead_peer_is_an_error_and_no_result() -> None:
    (nothing_but_nan, text), _ = run(ranks.dead_peer)
    assert nothing_but_nan
    assert "a peer has sent nothing" in text


def test_who_gave_up_gives_nothing_but_nan_and_who_was_late_nothing_wrong(tmp_path: Path) -> None:
    faults = every_fault(2, (0, 1, 2, 3))
    for name, _, _ in faults:
        (tmp_path / name).mkdir()
    judge_faults(faults, run(ranks.faulty, str(tmp_path), faults))


def test_whenever_a_rank_is_late_no_result_is_finite_and_wrong() -> None:
    judge_wandering(run(ranks.at_random_times, 100))
