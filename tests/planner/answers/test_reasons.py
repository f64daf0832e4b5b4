"""The reason that `explain` gives for an op that was not chosen is the true one, and names what a user could change."""

from __future__ import annotations

from typing import Any

import pytest

from commplan.planner.answers.explanation import Explainer
from commplan.planner.answers.refusals import NOWHERE
from commplan.planner.search.graph import Plan, Restriction
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.errors import NoLegalPlanError
from commplan.planner.strategy.layout import BOUNDARIES, FORWARD_BOUNDARIES

from ..cli.commandline import answer, run
from ..named_plans import planner_of

SERVER = ("deepseek-r1-h20-tp8", "--set=hardware=h200-8", "--set=executor=sglang", "--mode", "prefill")
ATTENTION_DP = ("qwen3-235b-h200-dp4", "--set=executor=plan_only")
LIMITED = ("deepseek-r1-h20-tp8", "--set=limits.activation_memory_gb=2.3")


def options(*arguments: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer("explain", *arguments)["alternatives"]
    return found


def reasons(op: str, *arguments: object, impl: str | None = None) -> list[str]:
    """Of every alternative of this name, by this impl where one is named."""
    given = options(*arguments, "--op", op)
    found = [o["reason"] for o in given if impl is None or o["impl"] == impl]
    assert found
    return found


def test_a_message_that_is_too_large_is_answered_with_the_largest_one() -> None:
    limit, message = "takes messages up to 16 MiB", "16384 tokens are 224 MiB"
    found = reasons("all_reduce", *SERVER, "--layer", 12, impl="custom_one_shot")
    assert any(limit in reason and message in reason for reason in found)


def test_a_plan_without_room_elsewhere_is_answered_with_the_place_and_the_limit() -> None:
    """The sum itself has room; the residual that it leaves on every rank has not, one boundary on."""
    found = [reason for reason in reasons("all_reduce", *LIMITED) if reason.startswith("needs ")]
    assert found
    for reason in found:
        assert reason.startswith("needs none at mlp_in of layer 30: holds 2.48 GB")
        assert "over the 2.3 GB of limits.activation_memory_gb" in reason


@pytest.mark.parametrize("group", ["tp", "attn_tp"])
def test_the_reason_of_a_sum_is_that_of_its_own_group(group: str) -> None:
    pin = "--set=numerics.pin=[{boundary: attn_out, op: reduce_scatter}]"
    found = [o for o in options(*ATTENTION_DP, pin, "--op", "all_reduce") if o["step_us"] is not None]
    of_group = [o["reason"] for o in found if o["ops"]["attn_out"]["all_reduce"]["group"] == group]
    assert of_group
    assert all(reason.startswith("numerics.pin[0] wants reduce_scatter here") for reason in of_group)


def test_a_rule_that_names_an_impl_forbids_or_wants_the_op_by_that_impl_alone() -> None:
    here = ("qwen3-32b-h200-tp2", "--mode", "decode", "--tokens", 1, "--boundary", "attn_out", "--layer", 12)

    def by(rule: str) -> dict[str, Any]:
        sums = [(o["ops"]["attn_out"], o) for o in options(*here, rule)]
        return {o["impl"]: o for ops, o in sums if "all_reduce" in ops and "pushed" not in str(ops)}

    forbidden = by("--set=numerics.forbid=[{op: all_reduce, impl: commplan_triton_norm}]")
    assert forbidden["commplan_triton_norm"]["reason"].startswith("forbidden by numerics.forbid[0]")
    assert forbidden["commplan_triton"]["legal"]
    pinned = by("--set=numerics.pin=[{op: all_reduce, impl: nccl, boundary: attn_out}]")
    assert pinned["nccl"]["legal"]
    assert pinned["commplan_triton"]["reason"].startswith("numerics.pin[0] wants all_reduce by nccl here")


def test_what_needs_a_forbidden_op_is_answered_with_that_op_and_its_rule() -> None:
    rule = "--set=numerics.forbid=[{op: all_reduce_all_gather}]"
    (reason,) = reasons("fused", *ATTENTION_DP, rule, "--boundary", "mlp_in", "--layer", 12)
    assert reason.startswith("needs all_reduce_all_gather(")
    assert "at attn_out of layer 12: forbidden by numerics.forbid[0]" in reason


def test_a_better_op_that_a_range_passed_over_says_so() -> None:
    """At 16384 tokens a fold by the library is a little faster; the range up to there keeps the scatter."""
    faster = [o for o in options("deepseek-r1-h20-tp8", "--tokens", 16384, "--boundary", "attn_out") if o["legal"]]
    faster = [o for o in faster if o["slower_by_us"] < -1]
    assert faster
    for option in faster:
        assert "faster by" in option["reason"]
        assert "one plan serves 657-16384 tokens, and may lose 0.50% (search.range_tolerance)" in option["reason"]


def test_on_one_rank_nobody_is_missing_because_nothing_travels() -> None:
    alone = ("deepseek-r1-h20-tp8", "--set=hardware=h200-8", "--set=parallelism.tp=1", "--boundary", "mlp_out")
    assert all("nothing is left to sum" in reason for reason in reasons("reduce_scatter", *alone))


def test_a_strategy_without_a_plan_is_told_by_its_own_ops_alone() -> None:
    planner = planner_of("qwen3-235b-h200-dp4", "prefill", "executor=plan_only", "hardware=ascend-a3-16")
    with pytest.raises(NoLegalPlanError) as caught:
        planner.graph(Restriction(strategies=("mixed_comm",)))
    assert "all_reduce_all_gather: " in caught.value.message
    assert "int8_all_reduce" not in caught.value.message
    assert "residual is" not in caught.value.message


@pytest.mark.slow
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(
    "deployment", [SERVER, ATTENTION_DP, LIMITED, ("qwen3-235b-h200-dp4", "--set=executor=sglang")]
)
def test_no_reason_is_the_one_that_says_nothing(deployment: tuple[str, ...], boundary: str) -> None:
    place = () if boundary in FORWARD_BOUNDARIES else ("--layer", 0)
    for option in options(*deployment, "--boundary", boundary, *place):
        assert option["reason"] and NOWHERE not in option["reason"]
        assert "leaves no plan around" not in option["reason"]


# ---- why a faster one was not chosen ---------------------------------------------------------------------------------


@pytest.fixture
def passed_over() -> tuple[ModePlanner, Plan]:
    """A range whose plan has a faster neighbour at its last count."""
    planner = planner_of("deepseek-r1-h20-tp8", "prefill")
    return planner, planner.ranges()[-1].plan


def kept_because(planner: ModePlanner, plan: Plan) -> list[str]:
    explained = Explainer(planner, 16384, plan, served=(1, 16384)).explain("attn_out", 12)
    return [o.reason for o in explained.alternatives if o.legal and (o.slower_by_us or 0) < -0.05]


def test_a_faster_op_at_a_count_whose_neighbours_want_another_is_answered_with_them(
    passed_over: tuple[ModePlanner, Plan],
) -> None:
    """The plan loses more than the tolerance, so it cannot be the merge."""
    strict = planner_of("deepseek-r1-h20-tp8", "prefill", "search.range_tolerance=1e-9")
    found = kept_because(strict, passed_over[1])
    assert found and all("and the counts beside this one want another" in reason for reason in found)


def test_a_faster_op_that_the_count_would_not_have_alone_is_not_blamed_on_the_range(
    passed_over: tuple[ModePlanner, Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    planner, plan = passed_over
    monkeypatch.setattr(planner, "alone", lambda tokens: plan)
    found = kept_because(planner, plan)
    assert found and all(reason.endswith("a plan does not alternate for that") for reason in found)


def test_a_plan_says_why_a_uniform_strategy_is_ahead_of_it() -> None:
    words = "one plan serves a whole range, and may lose 0.50% (search.range_tolerance)"
    assert words in run("plan", "deepseek-r1-h20-tp8").out
    assert words not in run("plan", "qwen3-0.6b-cpu-tp2").out
