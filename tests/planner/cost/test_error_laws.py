"""The error of a format is a law of how large the largest value of a row is, and of the format alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.cost.numerics import relative_rms_error
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.ops import Op

WIDTH = 5120
INT8 = Op("int8_all_reduce", algorithm="two_shot")


def of(wire: str, group: Any, algorithm: str = "two_shot") -> Op:
    return Op("quantized_all_reduce", algorithm=algorithm, wire_name=wire, scale_group=group)


@pytest.mark.parametrize("op", [INT8, of("int4", "64"), of("fp8_e4m3", "token")])
def test_without_outliers_an_error_is_that_of_normal_rows(op: Op):
    assert op.error is not None
    for ratio in (None, 1.0, 3.8):
        assert relative_rms_error(op, 8, ratio, WIDTH) == op.error.by_ranks[16]
    assert relative_rms_error(Op("all_reduce"), 8, 60.0, WIDTH) == 0.0


def test_outliers_spoil_a_scale_for_a_whole_row_and_no_scale_for_a_group_nor_fp8():
    errors = [relative_rms_error(INT8, 2, ratio, WIDTH) for ratio in (4.0, 10.0, 30.0, 60.0)]
    assert errors == sorted(errors) and errors[-1] > 0.4
    assert relative_rms_error(INT8, 2, 71.5, WIDTH) < 1.0, "no more is lost than there is"
    for op in (of("int8", "128"), of("fp8_e4m3", "token"), of("int4_spikes", "64")):
        assert relative_rms_error(op, 2, 60.0, WIDTH) == relative_rms_error(op, 2)
    assert relative_rms_error(INT8, 2, 30.0, WIDTH) > relative_rms_error(of("fp8_e4m3", "token"), 2, 30.0, WIDTH)


def test_the_committed_slopes_are_what_the_benchmark_measures():
    torch = pytest.importorskip("torch")
    path = Path(__file__).parents[3] / "benchmarks/planner/wire_error.py"
    spec = importlib.util.spec_from_file_location("wire_error", path)
    assert spec is not None and spec.loader is not None
    script: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    x = torch.randn(16, WIDTH, generator=torch.Generator().manual_seed(3))
    x[:, 0] = 100.0
    for wire, group in (("int8", "token"), ("int4", "token"), ("int8", "128"), ("fp8_e4m3", "token")):
        beside = slice(1 if group == "token" else 128, None)
        lost = (script.quantised(x, wire, group) - x)[:, beside].norm() / x[:, beside].norm()
        error = of(wire, group, "gather").error
        assert error is not None and error.at(2, 100.0) == pytest.approx(float(lost), rel=0.1), (wire, group)


def test_of_the_same_budget_fewer_sums_in_int8_per_token_are_left_where_there_are_outliers():
    base = ("numerics.loosest=quantized", "numerics.error_budget=0.15", "executor=plan_only")
    calm, wild = (
        ModePlanner(load_setup("qwen3-32b-h100-tp2", (*base, *more)), "prefill").best(8192)
        for more in ((), ("numerics.outlier_ratio=40.0",))
    )
    before, left = (sum(n for edge, n in plan.counted if edge.op.name == INT8.name) for plan in (calm, wild))
    assert before > left


def test_an_outlier_ratio_below_one_is_refused_by_its_field():
    with pytest.raises(InputError, match=r"numerics\.outlier_ratio"):
        load_setup("qwen3-32b-h200-tp2", ("numerics.outlier_ratio=0.5",))
