"""Ops by one kernel of commplan's are measured before any table of them exists, and only what ran becomes a table."""

from __future__ import annotations

import pytest

from commplan.planner.backtest.held_out import held_out
from commplan.planner.calibration.needed_points import RIVALS, Point, points_of
from commplan.planner.calibration.result import Samples, calibration_of, dump
from commplan.planner.descriptions.base import build
from commplan.planner.descriptions.calibration import COLLECTIVES, Calibration
from commplan.planner.descriptions.deployment import DTYPE_BYTES
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.descriptions.setup import Setup
from commplan.planner.search.graph import Restriction
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.yaml_file import parse_yaml

from ..cli.commandline import answer, run

OWN = ("commplan_triton", "commplan_triton_norm")
QWEN, LATENT, PAIRS = "qwen3-32b-h200-tp2", "deepseek-r1-h200-tp2", "qwen3-235b-h200-dp4"
MACHINE = {"ranks": "2", "torch": "2.13.0", "backend": "nccl", "device": "an invented one"}


def own_points(*deployments: str, overrides: tuple[str, ...] = ()) -> list[Point]:
    return [p for p in points_of([load_setup(d, overrides) for d in deployments]) if p[0] in OWN]


def rows_of(points: list[Point], kind: str, name: str, group_size: int, width: int) -> list[int]:
    return [p[4] for p in points if (p[0], p[1], p[2], p[5]) == (kind, name, group_size, width)]


def samples_of(setup: Setup, ran: bool = True) -> Samples:
    """Invented times: 2 us and what grows with the bytes; of one-launch kernels none where they did not run."""

    def one(p: Point) -> list[float]:
        kind, _, group_size, dtype, rows, width, columns = p
        if kind in (*OWN, *RIVALS) and not ran:
            return []
        grows = rows * width * (columns if kind == "gemm" else DTYPE_BYTES[dtype])
        return [2.0 + group_size + grows / 1e6] * 3

    return {p: [one(p), one(p)] for p in points_of([setup])}


def calibrated(setup: Setup, ran: bool = True) -> Calibration:
    return calibration_of(samples_of(setup, ran), setup.executor, "nccl", "invented", MACHINE, "a test")


# ---- points ----------------------------------------------------------------------------------------------------------


def test_every_op_of_the_kernels_is_measured_though_no_table_of_it_exists():
    published = ("hardware.calibrations=[{file: h200-sxm}]",)
    assert not any(t.impl in OWN for c in load_setup(QWEN, published).calibrations for t in c.calibration.tables)
    names = {(kind, name) for kind, name, *_ in own_points(QWEN, overrides=published)}
    both = {
        "all_reduce",
        "all_reduce.one_shot",
        "all_reduce.two_shot",
        "int8_all_reduce.gather",
        "int8_all_reduce.two_shot",
        "reduce_scatter",
        *(
            f"quantized_all_reduce.{algorithm}.{wire}"
            for algorithm in ("gather", "two_shot")
            for wire in ("int8.64", "int6.64", "fp8_e4m3.64", "int4_spikes.64", "int8.128", "fp8_e4m3.128")
        ),
        "quantized_all_reduce.two_shot.fp8_e4m3.256",
    }
    one = {("commplan_triton", "all_gather"), ("commplan_triton_norm", "all_reduce.pushed")}
    assert names == {(impl, name) for impl in OWN for name in both} | one


def test_row_counts_are_powers_of_two_with_one_between_from_128_rows_on():
    rows = rows_of(own_points(QWEN), "commplan_triton", "all_reduce", 2, 5120)
    assert rows[:8] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert rows[8:12] == [192, 256, 384, 512]
    assert rows[-1] == 16384
    assert len(rows) == len(set(rows)) == 22


def test_what_is_gathered_has_equal_shards():
    rows = rows_of(own_points("qwen3-235b-h200-tp8"), "commplan_triton", "all_gather", 8, 4096)
    assert rows[0] == 8
    assert all(count % 8 == 0 for count in rows)


def test_latents_are_measured_at_their_own_width_by_the_same_kernel():
    points = own_points(LATENT)
    assert rows_of(points, "commplan_triton", "all_gather", 2, 2112)
    assert rows_of(points, "commplan_triton", "all_gather", 2, 7168)
    assert "latent_all_gather" not in {name for _, name, *_ in points}


def test_a_pair_says_how_many_dp_groups_it_joins():
    pairs = ("all_reduce_all_gather", "reduce_scatter_all_reduce")
    points = [p for p in own_points(PAIRS) if p[1].partition(".")[0] in pairs]
    assert {(p[0], p[1], p[2], p[6]) for p in points} == {
        ("commplan_triton", name + how, 8, 4) for name in pairs for how in ("", ".one_shot", ".two_shot")
    }
    assert all(p[6] == 0 for p in own_points(PAIRS) if p not in points)
    assert all(p[4] % 8 == 0 for p in points)


def test_points_of_several_deployments_are_measured_once():
    both = own_points(QWEN, LATENT)
    assert len(both) == len(set(both)) == len(own_points(QWEN)) + len(own_points(LATENT))


@pytest.mark.parametrize(
    ("deployment", "overrides"),
    [
        ("qwen3-0.6b-cpu-tp2", ()),
        (QWEN, ("executor=vllm",)),
        (QWEN, ("dtypes.activations=fp32",)),
        ("deepseek-r1-2xh200nodes-tp16", ()),
    ],
    ids=["CPUs", "another executor", "fp32", "two nodes"],
)
def test_nothing_is_measured_where_the_kernels_cannot_run(deployment, overrides):
    assert own_points(deployment, overrides=overrides) == []


# ---- tables ----------------------------------------------------------------------------------------------------------


def test_a_calibration_of_the_kernels_is_read_as_it_was_written_and_planned_with(tmp_path):
    setup = load_setup(QWEN)
    calibration = calibrated(setup)
    text = dump(calibration)
    assert build(Calibration, parse_yaml(text), "x.yaml") == calibration
    path = tmp_path / "x.yaml"
    path.write_text(text)
    planner = ModePlanner(load_setup(QWEN, (f"hardware.calibrations=[{{file: {path}}}]",)), "prefill")
    for edge in planner.graph(Restriction(policy=False)).edges:
        for term in edge.terms:
            if edge.op.impl in OWN and term.category == "wire":
                estimate = planner.costs.estimate(term, 4096)
                assert estimate.provenance == "measured"
                assert "instead of" not in estimate.source
                bytes_ = planner.costs.rows(term.rows, 4096) * 5120 * 2
                assert term.rows == "logits" or estimate.total_us == pytest.approx(4.0 + bytes_ / 1e6)


def test_tables_say_algorithm_and_width_and_pairs_their_dp_groups():
    tables = [t for t in calibrated(load_setup(PAIRS)).tables if t.impl in OWN]
    assert {t.algorithm for t in tables if t.op == "int8_all_reduce"} == {"gather", "two_shot"}
    assert {t.attn_dp for t in tables if t.op.startswith("all_reduce_") or t.op.endswith("_all_reduce")} >= {4}
    assert {t.width for t in tables} == {4096}


def calibrated_by_algorithm(known: tuple[str, ...]) -> Calibration:
    """With tables of our all-reduce by these algorithms: one shot starts soonest, two shots bring bytes the fastest."""
    setup = load_setup(QWEN)
    slow = {p: [[10 * us for us in of_rank] for of_rank in by_rank] for p, by_rank in samples_of(setup).items()}
    samples = {
        point: by_rank for point, by_rank in slow.items() if point[0] != "gemm"
    }  # what is planned is what counts
    for point in list(samples):
        op, _, algorithm = point[1].partition(".")
        if point[0] not in OWN or op != "all_reduce" or not algorithm:
            continue
        usual = samples.pop(point)
        if algorithm in known:
            by = {"one_shot": lambda us: us - 30.0, "two_shot": lambda us: 50.0 + us / 50}[algorithm]
            samples[point] = [[by(us) for us in of_rank] for of_rank in usual]
    return calibration_of(samples, setup.executor, "nccl", "invented", MACHINE, "a test")


@pytest.mark.parametrize("known", [(), ("two_shot",), ("one_shot", "two_shot")])
def test_a_plan_names_the_algorithm_of_our_all_reduce_where_a_table_of_it_is_the_fastest(known, tmp_path):
    path, plan = tmp_path / "x.yaml", tmp_path / "plan.yaml"
    path.write_text(dump(calibrated_by_algorithm(known)))
    run("plan", QWEN, "--set", f"hardware.calibrations=[{{file: {path}}}]", "-o", plan)
    modes = parse_yaml(plan.read_text())["modes"]
    few, many = (str(modes[mode][-1]["layers"][0]["mlp_out"]) for mode in ("decode", "prefill"))
    assert ("one_shot" in few) == ("one_shot" in known)
    assert ("two_shot" in many) == ("two_shot" in known)
    assert run("validate", plan).code == 0


SERVED = ("executor=sglang",)


def test_pushed_rows_are_measured_whoever_makes_them_and_taken_by_the_kernel_with_the_norm():
    for overrides in ((), SERVED):
        found = [p for p in own_points(QWEN, overrides=overrides) if "pushed" in p[1]]
        assert {p[:4] for p in found} == {("commplan_triton_norm", "all_reduce.pushed", 2, "bf16")}
        assert max(p[4] for p in found) == 16384
    for other in ("parallelism.tp=4", "dtypes.weights=fp8"):
        elsewhere = own_points(QWEN, overrides=("hardware=h200-8", other, *SERVED))
        assert not [p for p in elsewhere if "pushed" in p[1]], other


@pytest.mark.parametrize("measured", [True, False])
def test_a_plan_pushes_rows_where_that_was_measured_and_is_the_fastest(measured, tmp_path):
    setup = load_setup(QWEN, SERVED)
    samples = {p: one for p, one in samples_of(setup).items() if p[0] != "gemm"}
    for point in [p for p in samples if p[1] == "all_reduce.pushed"]:
        usual = samples.pop(point)
        if measured:  # late with few rows, and hidden when there are many
            samples[point] = [[30.0 + us / 50 for us in of_rank] for of_rank in usual]
    path, plan = tmp_path / "x.yaml", tmp_path / "plan.yaml"
    path.write_text(dump(calibration_of(samples, setup.executor, "nccl", "invented", MACHINE, "a test")))
    with_table = ("--set", *SERVED, "--set", f"hardware.calibrations=[{{file: {path}}}]", "-o", plan)
    said = run("plan", QWEN, *with_table).out
    assert ("and where rows are pushed" in said) == measured
    page = tmp_path / "x.html"
    run("report", plan, "-o", page)
    assert ("and where rows are pushed" in page.read_text()) == measured
    layers = {mode: ranges[-1]["layers"][0] for mode, ranges in parse_yaml(plan.read_text())["modes"].items()}
    many = (str(layers["prefill"][boundary]) for boundary in ("attn_out", "mlp_out"))
    assert ["pushed" in op for op in many] == [measured] * 2
    assert "pushed" not in str(layers["decode"])
    assert run("validate", plan).code == 0
    for other in ("numerics.loosest=exact", "dtypes.weights=fp8"):
        run("plan", QWEN, "--set", other, *with_table)
        assert "pushed" not in plan.read_text(), other
    run("plan", QWEN, "--set", "model=qwen3-8b", *with_table)  # 2048 inner columns behind attention, 6144 in the MLP
    layer = parse_yaml(plan.read_text())["modes"]["prefill"][-1]["layers"][0]
    assert "pushed" not in str(layer["attn_out"]) and ("pushed" in str(layer["mlp_out"])) == measured
    assert "pushed" not in answer("plan", QWEN, *with_table[2:])  # executor transformers


def test_a_machine_on_which_the_kernels_did_not_run_gets_no_tables_of_them():
    calibration = calibrated(load_setup(QWEN), ran=False)
    assert {t.impl for t in calibration.tables} == {"nccl", "composed_norm"}  # which needs the library alone
    assert calibration.kernels and calibration.gemms


def test_kernels_that_servers_sum_with_are_measured_on_the_rows_of_our_own_sums():
    points = [p for p in points_of([load_setup(QWEN)]) if p[0] in RIVALS]
    assert {(p[0], p[1], p[2], p[5]) for p in points} == {(impl, "all_reduce", 2, 5120) for impl in RIVALS}
    assert {p[4] for p in points} <= {p[4] for p in own_points(QWEN) if p[1] == "all_reduce"}


def test_their_tables_hold_messages_of_all_widths_but_where_a_norm_needs_whole_rows():
    both = ("hardware.calibrations=[]", "dtypes.weights=bf16")
    setups = [load_setup(d, both) for d in (QWEN, LATENT)]
    samples = {p: [[1.0 + p[4] * p[5] / 1e6] * 3] * 2 for p in points_of(setups)}
    calibration = calibration_of(samples, setups[0].executor, "nccl", "invented", MACHINE, "a test")
    widths = {(t.impl, t.width) for t in calibration.tables if t.impl in RIVALS}
    plain = {(impl, None) for impl in RIVALS if impl != "flashinfer_fused"}
    assert widths == plain | {("flashinfer_fused", 5120), ("flashinfer_fused", 7168)}
    assert parse_yaml(dump(calibration))["tables"]


def test_a_point_that_one_rank_has_no_sample_of_is_left_out():
    setup = load_setup(QWEN)
    samples = samples_of(setup)
    lost = next(p for p in samples if p[:2] == (OWN[0], "all_reduce") and p[4] == 512)
    samples[lost] = [samples[lost][0], []]
    calibration = calibration_of(samples, setup.executor, "nccl", "invented", MACHINE, "a test")
    counts = {
        (t.impl, t.op, t.algorithm, t.wire, t.scale_group): len(t.message_bytes)
        for t in calibration.tables
        if t.impl in OWN and t.op != "all_gather"
    }
    assert sorted(counts.values()) == [21, *[22] * 38]


# ---- files -----------------------------------------------------------------------------------------------------------


def file_with(*tables: dict[str, object]) -> dict[str, object]:
    library = [
        {"op": op, "impl": "nccl", "dtype": "bf16", "group_size": 2, "message_bytes": [1, 2], "latency_us": [1.0, 1.0]}
        for op in COLLECTIVES
    ]
    row = {"impl": OWN[0], "dtype": "bf16", "group_size": 4, "message_bytes": [1, 2], "latency_us": [1.0, 1.0]}
    head = {"schema": "commplan/calibration/v1", "name": "x", "machine": "x", "library": "x"}
    return {**head, "provenance": "measured", "source": "a test", "tables": [*library, *(row | t for t in tables)]}


INT8 = {"op": "int8_all_reduce", "algorithm": "gather"}


@pytest.mark.parametrize(
    ("table", "field", "words"),
    [
        (INT8 | {"algorithm": "ring"}, "algorithm", "two_shot"),
        ({"op": "int8_all_reduce"}, "algorithm", "says its algorithm"),
        (
            {"op": "all_reduce", "algorithm": "ring"},
            "algorithm",
            "should be 'one_shot', 'two_shot', 'pushed' or 'gather'",
        ),
        ({"op": "all_reduce", "algorithm": "one_shot", "pieces": 2}, "pieces", "they are of sums by whole messages"),
        ({"op": "reduce_scatter", "algorithm": "gather"}, "algorithm", "reduce_scatter has none"),
        ({"op": "latent_all_gather"}, "op", "all_gather"),
        ({"op": "all_reduce", "width": 0}, "width", "greater"),
        ({"op": "all_reduce_all_gather"}, "attn_dp", "says its attn_dp"),
        ({"op": "all_reduce_all_gather", "attn_dp": 3}, "attn_dp", "does not split 4 ranks"),
        ({"op": "all_reduce_all_gather", "attn_dp": 4}, "attn_dp", "does not split 4 ranks"),
        ({"op": "all_gather", "attn_dp": 2}, "attn_dp", "all_gather has none"),
        (INT8 | {"latency_us": [1.0]}, "latency_us", "latenc"),
    ],
)
def test_a_spoiled_table_is_refused(table, field, words):
    with pytest.raises(InputError) as caught:
        build(Calibration, file_with(table), "x.yaml")
    assert caught.value.field is not None
    assert caught.value.field.startswith(f"tables[4].{field}") or (caught.value.field == "tables[4]")
    assert words in str(caught.value)


def test_two_tables_of_one_op_differ_in_algorithm_or_width():
    build(
        Calibration, file_with(INT8, INT8 | {"algorithm": "two_shot"}, INT8 | {"width": 64}, INT8 | {"width": 128}), "x"
    )
    with pytest.raises(InputError, match="two tables for int8_all_reduce gather commplan_triton bf16 4 64"):
        build(Calibration, file_with(INT8 | {"width": 64}, INT8 | {"width": 64}), "x.yaml")


def test_a_kernels_table_does_not_stand_in_for_a_missing_collective():
    data = file_with(INT8)
    data["tables"] = [t for t in data["tables"] if t["op"] != "all_gather"]
    with pytest.raises(InputError, match="no table for all_gather"):
        build(Calibration, data, "x.yaml")


def test_held_out_points_are_shown_by_algorithm_and_width(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(dump(calibrated(load_setup(PAIRS))))
    found = {(t.op, t.algorithm, t.impl, t.width, t.attn_dp) for t in held_out(str(path))}
    assert ("int8_all_reduce", "two_shot", OWN[1], 4096, None) in found
    assert ("reduce_scatter_all_reduce", None, OWN[0], 4096, 4) in found
    assert {"algorithm", "width", "attn_dp"} <= set(answer("backtest", "--tables", path)["tables"][0])
    text = run("backtest", "--tables", path).out
    assert " width " in text
    assert "int8_all_reduce two_shot" in text
    assert " 2 x 4 " in text
    assert " width " not in run("backtest", "--tables", "h200-sxm").out
