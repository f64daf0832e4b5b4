"""Pipeline stages, context parallelism and expert backends, as the commands take, refuse and tell them."""

from __future__ import annotations

import pytest

from commplan.planner.answers.experts import compare_experts
from commplan.planner.descriptions.loader import load_setup

from .commandline import answer, refused, run

SMALL, R1, V3 = "qwen3-0.6b-cpu-tp2", "deepseek-r1-2xh200nodes-tp16", "deepseek-v3-a3-tp16"
QWEN = "qwen3-235b-h200-tp8"
STAGED = ("--set=parallelism.tp=8", "--set=parallelism.pp=2")


# ---- stages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["transformers", "sglang", "vllm"])
def test_an_executor_that_runs_one_stage_refuses_two_with_reason_and_way_out(executor):
    stages = ("--set=parallelism.tp=4", "--set=parallelism.pp=2", f"--set=executor={executor}")
    error = refused("plan", QWEN, *stages)
    assert (error["field"], error["value"]) == ("parallelism.pp", 2)
    for words in (f"{executor} runs plans of one stage", "none hands its streams on", "use 1, or executor plan_only"):
        assert words in error["message"]


def test_plan_and_what_if_say_how_many_stages_there_are():
    assert "DeepSeek-R1 on h200-2nodes, TP 8 x PP 2, executor plan_only" in run("plan", R1, *STAGED, "--brief").out
    assert "TP 8 x PP 2\n" in run("what-if", R1, *STAGED, "--vary", "tokens=64").out


def step_of(point) -> float:
    """The step of a point's plan."""
    return next(plan["step_us"] for plan in point["plans"] if plan["name"] == "plan")


def test_stages_can_be_varied_and_leave_room_for_a_step_that_is_a_little_longer():
    one, two, four = answer("what-if", R1, "--set=parallelism.tp=8", "--vary", "pp=1,2,4", "--tokens=4096")["points"]
    assert two["kv_tokens_left"] > 3 * one["kv_tokens_left"]
    assert 1 < step_of(two) / step_of(one) < 1.02
    assert not four["legal"] and "4 stages of 8 ranks take 4 nodes" in four["reason"]


def test_the_fewest_devices_count_those_of_every_stage():
    found = answer("what-if", R1, *STAGED, "--vary", "parallelism.tp=4,8")["answers"]
    fewest = next(each for each in found if each["question"] == "Fewest devices?")
    tried = [row["devices"] for row in fewest["figures"]]
    assert all(devices % 2 == 0 for devices in tried) and max(tried) == 8


def test_explain_says_that_a_layer_hands_its_streams_on():
    told = "hand-over of both streams to the next one"
    at = ("explain", R1, *STAGED, "--boundary", "mlp_out", "--layer")
    assert told in run(*at, 30).out and told not in run(*at, 29).out
    wire = [answer(*at, layer)["chosen"]["breakdown"]["wire_us"] for layer in (30, 29)]
    assert wire[0] != wire[1]


def test_a_file_of_other_stages_is_not_explained(tmp_path):
    run("plan", R1, *STAGED, "-o", tmp_path / "two.yaml")
    error = refused("explain", R1, STAGED[0], "--set=parallelism.pp=1", "--strategy", tmp_path / "two.yaml")
    assert (error["field"], error["value"], error["message"]) == ("parallelism.pp", 2, "the deployment has 1")


def test_a_difference_in_stages_is_one(tmp_path):
    run("plan", R1, *STAGED, "-o", tmp_path / "two.yaml")
    run("plan", R1, STAGED[0], "-o", tmp_path / "one.yaml")
    assert "parallelism.pp" in run("diff", tmp_path / "one.yaml", tmp_path / "two.yaml").out


# ---- what there is not -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["cp", "cp_size", "dcp", "attn_cp_size", "context_parallel"])
def test_context_parallelism_is_refused_by_name_with_the_way_out(key):
    error = refused("plan", SMALL, f"--set=parallelism.{key}=2")
    assert (error["kind"], error["field"], error["value"]) == ("unknown_key", f"parallelism.{key}", 2)
    assert error["message"].startswith("context parallelism splits each sequence over ranks")
    assert "leave it out" in error["message"]
    varied = refused("what-if", SMALL, "--vary", f"parallelism.{key}=1,2")
    assert varied["message"] == error["message"]


@pytest.mark.parametrize(("key", "way"), [("dp", "attn_dp"), ("sp", "tp_sp"), ("moe_tp_size", "tp / ep")])
def test_other_sizes_that_servers_have_are_refused_with_what_there_is_here(key, way):
    assert way in refused("plan", SMALL, f"--set=parallelism.{key}=2")["message"]
    assert way in refused("what-if", SMALL, "--vary", f"{key}=1,2")["message"]


# ---- experts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("executor", "runs"), [("transformers", False), ("vllm", False), ("sglang", True)])
def test_split_experts_over_some_ranks_are_planned_for_those_who_run_them(executor, runs):
    given = ("plan", QWEN, "--set=parallelism.ep=4", f"--set=executor={executor}")
    if runs:
        assert answer(*given)["modes"]
        return
    error = refused(*given)
    assert (error["field"], error["value"]) == ("parallelism.ep", 4)
    assert f"{executor} spreads experts over 1 or all 8 ranks" in error["message"]
    assert "use 1 or 8, or executor plan_only" in error["message"]


def test_plan_compares_backends_at_the_end_of_every_range_as_what_if_prices_them():
    planned = answer("plan", V3)
    ends = [(mode, each["tokens"][1]) for mode, ranges in planned["modes"].items() for each in ranges]
    assert [(at["mode"], at["tokens"]) for at in planned["experts"]["at"]] == ends
    mode, tokens = ends[0]  # decode of 256 tokens does not fit
    vary = ("--vary", "parallelism.moe_backend=tensor_parallel,all_to_all", "--mode", mode, "--tokens", tokens)
    for point in answer("what-if", V3, *vary)["points"]:
        backend = point["set"]["parallelism.moe_backend"]
        assert planned["experts"]["at"][0]["step_us"][backend] == pytest.approx(step_of(point))


def test_the_faster_backend_is_named_with_its_gain():
    at = answer("plan", V3)["experts"]["at"][-1]
    slower = next(name for name in at["step_us"] if name != at["cheaper"])
    assert at["gain"] == pytest.approx(at["step_us"][slower] / at["step_us"][at["cheaper"]])
    text = " ".join(run("plan", V3).out.split())
    assert "Experts over 16 ranks, the faster backend: prefill " in text
    assert f"{at['gain']:.3f}x at {at['tokens']}" in text
    missing = "(assumed: no table of all_to_all over 16 ranks)"
    assert f"dispatch and combine are the library's all-to-alls {missing}, not overlapped" in text
    measured = " ".join(run("plan", QWEN, "--set=parallelism.ep=8").out.split())
    assert "dispatch and combine are the library's all-to-alls (table), not overlapped" in measured


def test_a_backend_that_the_executor_does_not_run_is_priced_by_one_that_does():
    given = ("plan", QWEN, "--set=parallelism.ep=4", "--set=executor=sglang")
    experts = answer(*given)["experts"]
    assert (experts["priced_as"], experts["ep"], experts["all_to_all_ep"]) == ("plan_only", 4, 8)
    text = " ".join(run(*given).out.split())
    assert "all_to_all with ep 8; both priced as executor plan_only, since sglang runs tensor_parallel alone." in text


def test_what_keeps_a_backend_from_being_compared_is_said():
    overrides = ("parallelism.ep=4", "model.num_experts=124", "executor=plan_only")
    found = compare_experts(load_setup(QWEN, overrides), [("prefill", 64)])
    assert found is not None and found.at == ()
    assert found.missing == "parallelism.ep: does not divide num_experts 124"
    text = " ".join(run("plan", QWEN, *(f"--set={text}" for text in overrides)).out.split())
    assert f"Experts over 4 ranks: an all-to-all cannot be compared: {found.missing}." in text


def test_nothing_is_said_of_experts_that_are_split_over_all_ranks_or_are_none():
    assert answer("plan", QWEN)["experts"] is None
    assert answer("plan", SMALL)["experts"] is None
    assert "Experts over" not in run("plan", QWEN).out


def test_explain_compares_backends_around_experts_alone():
    at = ("explain", V3, "--boundary")
    assert "Experts over 16 ranks" in run(*at, "mlp_out", "--layer", 30).out
    assert "Experts over 16 ranks" not in run(*at, "mlp_out", "--layer", 0).out
    assert "Experts over 16 ranks" not in run(*at, "attn_out", "--layer", 30).out
