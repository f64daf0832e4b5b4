"""What is measured is what the cost model asks about, and a file of measurements prices a plan all by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from commplan.planner.calibration.needed_points import Point, check_measurable, points_of
from commplan.planner.calibration.result import calibration_of, dump
from commplan.planner.cost.measured import MeasuredKernels
from commplan.planner.cost.terms import Composed, Unhidden
from commplan.planner.descriptions.base import build
from commplan.planner.descriptions.calibration import Calibration
from commplan.planner.descriptions.deployment import DTYPE_BYTES
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.descriptions.setup import Setup, UsedCalibration
from commplan.planner.executors import load_executor
from commplan.planner.search.graph import Restriction
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.wire_formats import INT8
from commplan.planner.strategy.yaml_file import parse_yaml

MACHINE = {"ranks": "2", "torch": "2.13.0", "backend": "nccl", "device": "an invented one"}
QWEN, LATENT = "qwen3-32b-h200-tp2", "deepseek-r1-h200-tp2"
BF16 = ("dtypes.weights=bf16",)


def linear(point: Point) -> float:
    """An invented time in us: a fixed part, and one that grows with the work."""
    kind, _, group_size, dtype, rows, width, columns = point
    if kind == "gemm":
        return 5.0 + rows * width * columns / 1e9
    return 2.0 + group_size + rows * width * DTYPE_BYTES[dtype] / 1e5


def measured(*setups: Setup) -> Calibration:
    samples = {p: [[linear(p)] * 5, [linear(p) * 0.9] * 5] for p in points_of(setups)}
    return calibration_of(samples, setups[0].executor, "nccl", "invented", MACHINE, "a test")


def with_calibration(deployment: str, calibration: Calibration, folder: Path, *overrides: str) -> Setup:
    path = folder / "calibration.yaml"
    path.write_text(dump(calibration))
    return load_setup(deployment, (f"hardware.calibrations=[{{file: {path}}}]", *overrides))


@pytest.mark.parametrize(("deployment", "overrides"), [(QWEN, ()), (LATENT, BF16), ("qwen3-235b-h200-dp4", ())])
def test_every_part_of_every_op_is_measured(deployment, overrides, tmp_path):
    calibration = measured(load_setup(deployment, overrides))
    setup = with_calibration(deployment, calibration, tmp_path, *overrides)
    for mode, spec in setup.deployment.modes.items():
        planner = ModePlanner(setup, mode)
        for tokens in (1, 3, 100, spec.tokens[1]):
            for term in {t for e in planner.graph(Restriction(policy=False)).edges for t in e.terms}:
                if isinstance(term.work, Composed | Unhidden):
                    continue  # measured whole, where plans have them: test_composed_points.py
                estimate = planner.costs.estimate(term, tokens)
                if estimate.total_us:
                    assert estimate.provenance == "measured", (term, tokens, estimate)
                    assert estimate.launch_us == 0
                    tiny = tokens <= 3 or "scales" in term.label
                    assert tiny or not estimate.source.endswith("extrapolated"), (term, tokens)


def test_a_file_is_read_as_it_was_written(tmp_path):
    calibration = measured(load_setup(QWEN), load_setup(LATENT, BF16))
    text = dump(calibration)
    again = build(Calibration, parse_yaml(text), "calibration.yaml")
    assert again == calibration
    assert max(map(len, text.splitlines())) <= 120


def test_a_point_is_the_median_on_the_slowest_rank():
    point: Point = ("kernel", "norm", 1, "bf16", 64, 256, 0)
    other: Point = ("kernel", "norm", 1, "bf16", 128, 256, 0)
    wire: list[Point] = [
        ("collective", op, 2, "bf16", n, 64, 0)
        for op in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
        for n in (2, 4)
    ]
    samples = {p: [[1.0, 2.0, 9.0], [3.0, 4.0, 5.0]] for p in (point, other, *wire)}
    calibration = calibration_of(samples, load_executor("transformers"), "nccl", "x", MACHINE, "a test")
    (table,) = calibration.kernels
    assert table.kernels == ("rms_norm",)
    assert table.message_bytes == (64 * 256 * 2, 128 * 256 * 2)
    assert table.latency_us == (4.0, 4.0)
    assert table.relative_spread == pytest.approx(0.25)


def kernels(*tables: dict[str, object]) -> MeasuredKernels:
    wire = [
        {"op": op, "impl": "nccl", "dtype": "bf16", "group_size": 2, "message_bytes": [1, 2], "latency_us": [1.0, 1.0]}
        for op in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
    ]
    data = {
        "schema": "commplan/calibration/v1",
        "name": "x",
        "machine": "x",
        "library": "x",
        "provenance": "measured",
        "source": "a test",
        "tables": wire,
        "kernels": [{"dtype": "bf16", "message_bytes": [1, 100], **table} for table in tables],
    }
    return MeasuredKernels([UsedCalibration(build(Calibration, data, "x"), None)])


def test_the_table_of_the_width_stands_and_else_of_the_nearest_one():
    found = kernels(
        {"kernels": ["rms_norm"], "width": 1000, "latency_us": [1.0, 1.0]},
        {"kernels": ["rms_norm"], "width": 4000, "latency_us": [2.0, 2.0]},
    )
    norm = load_executor("transformers").kernels_of("norm", "nccl")
    times = [found.passes(norm, "bf16", 10, width, 1) for width in (1000, 1500, 3000, 4000)]
    assert [t and t.time_us for t in times] == [1.0, 1.0, 2.0, 2.0]
    assert found.passes(norm, "fp32", 10, 1000, 1) is None
    assert found.passes(load_executor("transformers").kernels_of("quantize", "nccl", INT8), "bf16", 10, 1000, 1) is None


def test_kernels_that_were_measured_one_by_one_add_up():
    found = kernels({"kernels": ["rms_norm"], "width": 1000, "latency_us": [1.0, 1.0]})
    norm = load_executor("transformers").kernels_of("norm", "nccl")
    both = found.passes(norm * 2, "bf16", 10, 1000, 1)
    assert both is not None
    assert both.time_us == 2.0


def test_two_tables_for_the_same_thing_are_refused():
    table = {"kernels": ["rms_norm"], "width": 8, "latency_us": [1.0, 1.0]}
    with pytest.raises(InputError, match="two tables"):
        kernels(table, table)


@pytest.mark.parametrize(
    ("overrides", "field"),
    [(("executor=sglang",), "executor"), (("executor=plan_only",), "executor")],
)
def test_only_our_own_kernels_can_be_measured(overrides, field):
    with pytest.raises(InputError) as caught:
        check_measurable([load_setup(QWEN, overrides)])
    assert caught.value.field == field


def test_deployments_of_different_machines_or_splits_are_refused():
    for other, field in (("qwen3-235b-h200-tp8", "hardware"), ("deepseek-r1-h200-tp2", None)):
        setups = [load_setup(QWEN), load_setup(other)]
        if field is None:
            check_measurable(setups)
            continue
        with pytest.raises(InputError) as caught:
            check_measurable(setups)
        assert caught.value.field == field
