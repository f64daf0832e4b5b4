"""What a case is told: the figure of the plan it names, the verdict by its tolerance, or why there is none."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from commplan.planner.answers.breakdown import PARTS, breakdown
from commplan.planner.backtest.case import read_case, shipped_cases
from commplan.planner.backtest.named_plan import named_plan
from commplan.planner.backtest.run import run_case
from commplan.planner.cost.estimate import PROVENANCES
from commplan.planner.strategy.ops import Op
from commplan.planner.strategy.yaml_file import flow_text

from ..cli.commandline import answer
from ..named_plans import named, planner_of

R1 = "deepseek-r1-h20-tp8"
LATE = (
    "{ops: {embed_out: reduce_scatter, attn_in: latent_all_gather, attn_out: {all_reduce: {residual: fold}}, "
    "mlp_out: reduce_scatter, head_in: all_gather}}"
)


def case(folder: Path, **fields: Any) -> Path:
    given = {
        "schema": "commplan/backtest/v1",
        "id": "a-case",
        "source": "invented for a test",
        "deployment": R1,
        "mode": "prefill",
        "tokens": 16384,
        "quantity": "step_time",
        "of": "{strategy: all_reduce}",
        "published": 1.0,
        "low": 0.0,
        "high": 1e12,
    } | fields
    path = folder / "case.yaml"
    lines = (
        f"{k}: {v if k in ('of', 'to', 'op', 'set') else flow_text(v)}\n" for k, v in given.items() if v is not None
    )
    path.write_text("".join(lines))
    return path


def predicted(folder: Path, **fields: Any) -> float:
    (found,) = answer("backtest", case(folder, **fields))["cases"]
    assert found["predicted"] is not None, found
    return found["predicted"]


def test_the_keys_that_other_programs_rely_on(tmp_path):
    (found,) = answer("backtest", case(tmp_path))["cases"]
    assert {"id", "source", "published", "predicted", "low", "high", "verdict", "provenance"} <= set(found)
    assert found["verdict"] == "inside"
    assert found["provenance"] in PROVENANCES


@pytest.mark.parametrize(("low", "high", "verdict"), [(0, 1e9, "inside"), (0, 1, "outside"), (1e9, 1e10, "outside")])
def test_the_verdict_is_by_the_tolerance(tmp_path, low, high, verdict):
    (found,) = answer("backtest", case(tmp_path, low=low, high=high))["cases"]
    assert found["verdict"] == verdict


def test_a_plan_named_by_its_ops_is_that_plan(tmp_path):
    planner = planner_of(R1, "prefill")
    ops = {
        "embed_out": "reduce_scatter",
        "attn_in": "latent_all_gather",
        "attn_out": {"all_reduce": {"residual": "fold"}},
        "mlp_out": "reduce_scatter",
        "head_in": "all_gather",
    }
    plan = named(planner, 16384, own_kernels=False, **ops)
    assert predicted(tmp_path, of=LATE) == pytest.approx(planner.step_us(plan, 16384))


def test_boundaries_that_nobody_names_stay_plain(tmp_path):
    ops = "{ops: {mlp_out: {int8_all_reduce: {algorithm: gather}}}}"
    planner = planner_of("qwen3-32b-a2-tp2", "prefill")
    plan = named(
        planner,
        4096,
        embed_out="all_reduce",
        attn_out="all_reduce",
        mlp_out={"int8_all_reduce": {"algorithm": "gather"}},
    )
    found = predicted(tmp_path, deployment="qwen3-32b-a2-tp2", tokens=4096, of=ops)
    assert found == pytest.approx(planner.step_us(plan, 4096))


def test_an_op_that_nobody_names_is_the_librarys_even_where_another_is_faster():
    planner = planner_of("deepseek-r1-h20-tp8", "decode", "hardware=h200-8", "executor=sglang")
    tokens = 64
    fastest = planner.best(tokens)
    plan = named_plan(planner, {"mlp_out": Op("all_reduce")}, tokens)
    assert all(edge.op.impl is None for edge in plan.edges)
    assert planner.step_us(plan, tokens) > planner.step_us(fastest, tokens)
    spelled = named_plan(planner, {"mlp_out": Op("all_reduce", impl="custom_one_shot")}, tokens)
    assert {edge.op.impl for edge in spelled.edges if edge.boundary == "mlp_out"} == {"custom_one_shot"}
    assert {edge.op.impl for edge in spelled.edges if edge.boundary == "attn_out"} == {None}


def test_what_gathers_rows_unnamed_is_the_librarys():
    """Before the head a fused kernel would be faster; a case that does not name it did not run it."""
    planner = planner_of("qwen3.5-397b-h200-dp4", "decode")
    ops = {"attn_out": Op("reduce_scatter"), "mlp_in": Op("all_gather"), "mlp_out": Op("reduce_scatter_all_gather")}
    assert all(edge.op.impl is None for edge in named_plan(planner, ops, 64).edges)


def test_a_named_op_that_no_library_has_is_by_the_impl_that_has_it():
    planner = planner_of("qwen3.5-397b-h200-dp4", "decode")
    plan = named_plan(planner, {"attn_out": Op("all_reduce_all_gather")}, 64)
    assert {edge.op.impl for edge in plan.edges if edge.boundary == "attn_out"} == {"flashinfer_mixed"}


@pytest.mark.parametrize("strategy", ["all_reduce", "tp_sp"])
def test_a_strategy_is_its_cheapest_member_by_libraries(tmp_path, strategy):
    uniform = planner_of(R1, "prefill").uniform(strategy, 16384, own_kernels=False)
    assert predicted(tmp_path, of=f"{{strategy: {strategy}}}") == pytest.approx(uniform.step_us)


def test_the_optimum_is_the_best_plan(tmp_path):
    planner = planner_of(R1, "prefill")
    assert predicted(tmp_path, of="optimum") == pytest.approx(planner.step_us(planner.best(16384), 16384))


def test_a_list_of_counts_gives_the_mean_of_the_predictions(tmp_path):
    counts = [256, 1024, 4096]
    each = [predicted(tmp_path, tokens=count, of=LATE, to="{strategy: all_reduce}") for count in counts]
    (found,) = answer("backtest", case(tmp_path, tokens=counts, of=LATE, to="{strategy: all_reduce}"))["cases"]
    assert found["predicted"] == pytest.approx(fmean(each))
    assert found["predicted_band"] == [pytest.approx(min(each)), pytest.approx(max(each))]


def test_the_parts_of_a_step_add_up(tmp_path):
    parts = [predicted(tmp_path, quantity=q, of=LATE) for q in ("collective_time", "compute_time")]
    assert sum(parts) == pytest.approx(predicted(tmp_path, of=LATE))


@pytest.mark.parametrize("deployment", ["deepseek-v3-a3-tp16", "qwen3.5-397b-h200-dp4", "qwen3-0.6b-cpu-tp2"])
def test_a_breakdown_adds_up_to_the_step(deployment):
    planner = planner_of(deployment, "decode")
    parts = breakdown(planner, planner.best(16), 16)
    assert tuple(parts.parts) == PARTS
    assert sum(parts.parts.values()) == pytest.approx(parts.step_us)
    assert parts.wire_bytes > 0
    assert parts.activation_bytes > 0


def test_throughput_is_tokens_by_step(tmp_path):
    step = predicted(tmp_path)
    assert predicted(tmp_path, quantity="throughput") == pytest.approx(16384 / step * 1e6)
    assert predicted(tmp_path, quantity="ttft") == pytest.approx(step)
    ratio = predicted(tmp_path, quantity="throughput", of=LATE, to="{strategy: all_reduce}")
    assert ratio == pytest.approx(step / predicted(tmp_path, of=LATE))


def test_overrides_reach_the_deployment(tmp_path):
    assert predicted(tmp_path, set="{parallelism.tp: 4}") > predicted(tmp_path)


def test_a_deployment_may_lie_beside_its_case(tmp_path):
    from commplan.planner.descriptions.loader import find

    (tmp_path / "mine.yaml").write_text(find(R1, "deployments", None, "deployment").read_text())
    assert predicted(tmp_path, deployment="mine.yaml") == predicted(tmp_path)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"of": "{strategy: int8_all_reduce}"}, "quantized"),
        ({"of": "{strategy: mixed_comm}"}, "attn_dp is 1"),
        ({"of": "{ops: {attn_out: all_reduce_all_gather}}"}, "attn_dp is 1"),
        ({"deployment": "qwen3-32b-h200-tp2", "of": "{ops: {attn_in: latent_all_gather}}"}, "latent"),
        ({"not_comparable": "nobody knows"}, "nobody knows"),
    ],
)
def test_what_the_deployment_cannot_do_is_not_comparable_with_the_reason(tmp_path, fields, word):
    (found,) = answer("backtest", case(tmp_path, **fields))["cases"]
    assert (found["verdict"], found["predicted"]) == ("not comparable", None)
    assert word in found["reason"]


def latency(folder: Path, deployment: str, op: str, **fields: Any) -> dict[str, Any]:
    none = {"of": None, "mode": None, "tokens": None}
    file = case(folder, deployment=deployment, quantity="op_latency", op=op, **none, **fields)
    (found,) = answer("backtest", file)["cases"]
    return found


def test_one_collective_at_a_knot_is_what_the_table_says(tmp_path):
    op = "{op: all_gather, impl: hccl, dtype: bf16, group_size: 16, message_bytes: 359032422}"
    found = latency(tmp_path, "deepseek-v3-a3-tp16", op)
    assert (found["predicted"], found["provenance"]) == (pytest.approx(1628), "table")


def test_one_collective_of_another_size_than_the_deployments_own(tmp_path):
    op = "{op: all_reduce, impl: nccl, dtype: bf16, group_size: 4, message_bytes: 16777216}"
    assert latency(tmp_path, "deepseek-r1-h20-tp8", op)["provenance"] == "table (transferred)"


@pytest.mark.parametrize(
    ("op", "word"),
    [
        ("{op: all_gather, impl: nccl, dtype: bf16, group_size: 64, message_bytes: 1024}", "larger than"),
        ("{op: all_gather, impl: hccl, dtype: bf16, group_size: 2, message_bytes: 1024}", "does not run on"),
    ],
)
def test_a_collective_that_the_machine_has_not_is_not_comparable(tmp_path, op, word):
    found = latency(tmp_path, "deepseek-r1-h20-tp8", op)
    assert found["verdict"] == "not comparable"
    assert word in found["reason"]


# ---- the cases that ship -------------------------------------------------------------------------------------------

INSIDE = {  # what the planner decides by: a change that loses one of these has to be looked at
    "sglang-10568-communication",
    "sglang-10568-latent-gemm",
    "sglang-12820-ttft-v3",
    "sglang-12820-ttft-v3.2",
    "sglang-20520-acceleration-313t",
    "sglang-23713-dp4-kernels",
}


@pytest.mark.parametrize("path", shipped_cases(), ids=lambda path: path.stem)
def test_every_shipped_case_runs_and_is_named_as_its_file(path):
    outcome = run_case(read_case(path), path)
    assert outcome.case.id == path.stem
    assert outcome.case.notes
    assert outcome.case.low <= outcome.case.published <= outcome.case.high
    assert (outcome.predicted is None) == (outcome.verdict == "not comparable")
    if outcome.case.id in INSIDE:
        assert outcome.verdict == "inside"


@pytest.mark.slow
def test_without_a_file_all_shipped_cases_are_run():
    assert len(answer("backtest")["cases"]) == len(shipped_cases())


def test_no_line_of_the_planner_knows_a_case():
    root = Path(__file__).parents[3] / "planner"
    text = "".join(path.read_text() for path in (root / "backtest").glob("*.py"))
    assert not [
        word for word in ("10568", "12820", "20520", "23713", "deepseek", "qwen", "h20") if word in text.lower()
    ]


def test_an_impl_without_table_or_formula_is_not_comparable(tmp_path):
    op = "{op: all_gather, impl: custom_one_shot, dtype: bf16, group_size: 8, message_bytes: 1024}"
    found = latency(tmp_path, "qwen2.5-72b-h100-tp4", op)
    assert found["verdict"] == "not comparable"
    assert "no table has all_gather by custom_one_shot" in found["reason"]


@pytest.mark.parametrize(("size", "beyond"), [(8192, False), (2048, True), (29360128, False), (2**30, True)])
def test_a_size_beyond_the_ends_of_a_table_is_marked(tmp_path, size, beyond):
    op = f"{{op: all_gather, impl: hccl, dtype: bf16, group_size: 8, message_bytes: {size}}}"
    assert latency(tmp_path, "deepseek-v3-a3-tp16", op)["extrapolated"] == beyond


def test_a_named_impl_is_what_ran_though_no_library_has_it(tmp_path):
    """Without the name the plan is the library's, and no library has sums of this format."""
    op = "{quantized_all_reduce: {wire: fp8_e4m3, group: '64', algorithm: two_shot, impl: composed_norm}}"
    setting = "{numerics.wire_formats: [int8, fp8_e4m3]}"
    spelled = {"deployment": "qwen3-32b-l40s-tp4", "set": setting, "to": "{strategy: all_reduce}", "published": 0.9}
    quantised = predicted(tmp_path, of=f"{{ops: {{attn_out: {op}, mlp_out: {op}}}}}", high=0.99, **spelled)
    assert 0.5 < quantised < 0.8
    unnamed = op.replace(", impl: composed_norm", "")
    (found,) = answer("backtest", case(tmp_path, of=f"{{ops: {{attn_out: {unnamed}}}}}", high=0.99, **spelled))["cases"]
    assert found["verdict"] == "not comparable"


def test_one_collective_borrows_the_tables_of_its_own_groups_size(tmp_path):
    """Two RTX 4090 are nearest to two L40S, four of them to four RTX PRO 6000s, whatever the deployment's tp is."""
    op = "{op: all_reduce, impl: nccl, dtype: bf16, group_size: 4, message_bytes: 67108864}"
    found = [
        latency(tmp_path, "qwen3-32b-l40s-tp4", op, set=f"{{hardware: rtx-4090-8, parallelism.tp: {tp}}}")["predicted"]
        for tp in (2, 4)
    ]
    assert found[0] == found[1]


def test_a_kernel_in_one_launch_has_a_latency_by_its_figures(tmp_path):
    op = "{op: all_reduce, impl: pcie_one_shot, dtype: bf16, group_size: 4, message_bytes: 4096}"
    found = latency(tmp_path, "qwen3-32b-l40s-tp4", op, set="{hardware: rtx-pro-6000-8, executor: plan_only}")
    assert found["predicted"] == pytest.approx(7.4, rel=0.05)
    assert found["provenance"] == "formula"
