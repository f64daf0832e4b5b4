"""What a deployment may demand of how sums are made: one order, one type, and nothing that was reported to be wrong."""

from __future__ import annotations

import pytest

from commplan.planner.descriptions.known_bad import known_bad
from commplan.planner.descriptions.loader import load_setup
from commplan.planner.executors import load_executor
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.layout import Parallelism

INVARIANT = "numerics.batch_invariant=true"


def planner(deployment: str, *overrides: str, mode: str = "prefill") -> ModePlanner:
    return ModePlanner(load_setup(deployment, overrides), mode)


def reasons(found: ModePlanner) -> dict[str, str]:
    """Why sums may not stand after the first attention, by op, algorithm and impl."""
    before = next(iter(found.graph().layers[1].boundaries["attn_out"]))
    rejected = found.builder.rejections("attn_out", 1, before)
    return {f"{r.op.name} {r.op.algorithm} {r.op.impl}": r.reason for r in rejected if not r.op.residual}


def test_a_plan_that_is_batch_invariant_has_one_range_a_mode_and_says_what_that_loses():
    free = planner("qwen3-32b-h200-tp2").ranges()
    (bound,) = planner("qwen3-32b-h200-tp2", INVARIANT).ranges()
    assert len(free) > 1 and (bound.first, bound.last) == (free[0].first, free[-1].last)
    assert bound.worst_loss > max(each.worst_loss for each in free)


def test_a_sum_whose_order_depends_on_the_token_count_is_refused_by_the_name_of_the_field():
    refused = reasons(planner("qwen3-235b-h200-tp8", INVARIANT))
    for op in ("all_reduce None None", "int8_all_reduce two_shot commplan_triton_norm"):
        assert refused[op].endswith("adds in one order at every token count (numerics.batch_invariant)"), op
    for op in ("all_reduce None commplan_triton_norm", "int8_all_reduce gather commplan_triton_norm"):
        assert "batch_invariant" not in refused.get(op, ""), op


def test_over_two_ranks_a_library_s_sum_has_but_one_order():
    assert "batch_invariant" not in reasons(planner("qwen3-32b-h200-tp2", INVARIANT)).get("all_reduce None None", "")


def test_sums_in_the_type_of_the_activations_are_refused_where_fp32_is_demanded():
    refused = reasons(planner("qwen3-235b-h200-tp8", "numerics.accumulation=fp32"))
    assert refused["all_reduce None None"] == (
        "nccl adds in the type of the activations, and numerics.accumulation is fp32"
    )
    assert "accumulation" not in refused.get("all_reduce None commplan_triton", "")


def test_every_combination_that_is_known_to_be_bad_names_an_impl_and_who_reported_it():
    assert known_bad()
    for each in known_bad():
        assert "#" in each.source, each
        for name in each.executors:
            assert each.impl in load_executor(name).impls, each


@pytest.mark.parametrize(
    ("executor", "parallelism", "mode", "bad"),
    [
        ("vllm", Parallelism(tp=4, pp=2), "prefill", True),
        ("vllm", Parallelism(tp=4), "prefill", False),
        ("sglang", Parallelism(tp=8, ep=4), "decode", True),
        ("sglang", Parallelism(tp=8, ep=8), "decode", False),
    ],
)
def test_a_known_bad_impl_is_refused_where_it_was_reported_and_nowhere_else(
    executor: str, parallelism: Parallelism, mode: str, bad: bool
):
    meant = [e for e in known_bad() if e.means("flashinfer_fused", mode, load_executor(executor), parallelism)]
    assert bool(meant) == bad


def test_a_plan_for_stages_has_no_fused_norm_that_deadlocked_there_and_says_who_reported_it():
    refused = reasons(planner("qwen3-235b-h200-tp8", "executor=plan_only", "parallelism.tp=4", "parallelism.pp=2"))
    assert "vllm-project/vllm#43616" in refused["all_reduce None flashinfer_fused"]
