"""`explain` says of every op that a strategy offers at a boundary what it would cost, or why it cannot stand there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from commplan.planner.answers.explanation import Explainer, Explanation
from commplan.planner.descriptions.loader import preset_names
from commplan.planner.search.graph import Plan
from commplan.planner.strategies import strategies
from commplan.planner.strategy.layout import BOUNDARIES, FORWARD_BOUNDARIES
from commplan.planner.strategy.ops import spell

from ..shared_planners import planner_of, ranges_of, setup_of
from .commandline import answer, refused, run

R1, PLAIN, ATTENTION_DP = "deepseek-r1-h20-tp8", "qwen3-32b-h200-tp2", "qwen3-235b-h200-dp4"


def names(explanation: dict[str, Any], legal: bool | None = None) -> set[str]:
    """Names of the ops explained, the chosen one included."""
    boundary = explanation["boundary"]
    options = [explanation["chosen"], *explanation["alternatives"]]
    spelled = [o["ops"][boundary] for o in options if legal is None or o["legal"] == legal]
    return {op if isinstance(op, str) else next(iter(op)) for op in spelled}


def explained(
    deployment: str, mode: str, tokens: int, plan: Plan, boundary: str, served: tuple[int, int] | None = None
) -> Explanation:
    """What the command explains by default: the layer in the middle."""
    planner = planner_of(deployment, mode)
    layer = None if boundary in FORWARD_BOUNDARIES else planner.setup.model.num_hidden_layers // 2
    return Explainer(planner, tokens, plan, served=served).explain(boundary, layer)


def slower(option: dict[str, Any]) -> float:
    return float(option["slower_by_us"])


@pytest.mark.parametrize("deployment", [R1, PLAIN, ATTENTION_DP, "deepseek-v3-a3-tp16", "qwen3.5-397b-h200-dp8"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_every_offered_op_gets_a_time_or_a_reason(deployment: str, boundary: str) -> None:
    mode = next(iter(setup_of(deployment).deployment.modes))
    chosen = ranges_of(deployment, mode)[-1]
    explanation = explained(deployment, mode, chosen.last, chosen.plan, boundary)
    offered = {offer.op.name for s in strategies().values() for offer in s.offers.get(boundary, ())}
    assert {option.op.name for option in (explanation.chosen, *explanation.alternatives)} >= offered
    for option in explanation.alternatives:
        assert option.reason
        assert option.legal is False or option.time_us is not None


@pytest.mark.slow
@pytest.mark.parametrize("deployment", preset_names("deployments"))
def test_no_alternative_beats_the_plan_by_more_than_its_range_may_lose(deployment: str) -> None:
    """At ends of ranges, where the search has looked and a range records its loss: the first, one between, the last."""
    for mode in setup_of(deployment).deployment.modes:
        ends = [(tokens, chosen) for chosen in ranges_of(deployment, mode) for tokens in (chosen.first, chosen.last)]
        for tokens, chosen in (ends[0], ends[len(ends) // 2], ends[-1]):
            explanation = explained(deployment, mode, tokens, chosen.plan, "attn_out")
            gains = [-(o.slower_by_us or 0.0) for o in explanation.alternatives if o.legal]
            allowed = max(0.005, chosen.worst_loss) * (explanation.chosen.step_us or 0.0)
            assert max(gains, default=0.0) <= allowed * 1.0001


@pytest.mark.parametrize(("deployment", "mode"), [(R1, "prefill"), (ATTENTION_DP, "decode")])
def test_the_command_says_what_the_explainer_says(deployment: str, mode: str) -> None:
    """At the end of every range; the two tests above then speak of the command too."""
    for chosen in ranges_of(deployment, mode):
        said = answer("explain", deployment, "--mode", mode, "--tokens", chosen.last)
        explanation = explained(deployment, mode, chosen.last, chosen.plan, "attn_out", (chosen.first, chosen.last))
        options = [explanation.chosen, *explanation.alternatives]
        assert [
            (o["ops"]["attn_out"], o["legal"], o["reason"], o["time_us"], o["slower_by_us"])
            for o in (said["chosen"], *said["alternatives"])
        ] == [(spell(o.op), o.legal, o.reason, o.time_us, o.slower_by_us) for o in options]


def test_without_a_range_tolerance_no_alternative_beats_the_plan() -> None:
    explanation = answer("explain", R1, "--tokens", 4096, "--set=search.range_tolerance=0")
    assert min(slower(o) for o in explanation["alternatives"] if o["legal"]) >= 0


def test_why_is_layer_12_of_my_prefill_not_int8() -> None:
    """Because the deployment allows no quantised sum: and it would not even be faster on this machine."""
    explanation = answer("explain", R1, "--mode", "prefill", "--layer", 12, "--op", "int8_all_reduce")
    assert explanation["alternatives"]
    for option in explanation["alternatives"]:
        assert option["legal"] is False
        assert "numerics.loosest is reordered" in option["reason"]
        assert "slower by" in option["reason"]
    assert names(explanation) == {"reduce_scatter", "int8_all_reduce"}


def test_where_quantised_sums_are_allowed_the_answer_is_a_price() -> None:
    explanation = answer("explain", PLAIN, "--layer", 12, "--op", "int8_all_reduce")
    prices = [o for o in explanation["alternatives"] if o["legal"]]
    assert prices
    assert all("a step" in o["reason"] for o in prices)


def test_a_forbidden_op_is_answered_with_the_rule() -> None:
    rule = "--set=numerics.forbid=[{op: latent_all_gather}, {op: reduce_scatter, boundary: attn_out}]"
    explanation = answer("explain", R1, "--layer", 12, "--boundary", "attn_in", rule)
    reasons = [o["reason"] for o in explanation["alternatives"] if "latent_all_gather" in o["ops"]["attn_in"]]
    assert reasons and all("numerics.forbid[0]" in reason for reason in reasons)


@pytest.mark.slow
def test_an_op_beside_a_pin_is_answered_with_the_pin() -> None:
    pin = "--set=numerics.pin=[{op: all_reduce, boundary: attn_out, layers: 12}]"
    pinned = answer("explain", PLAIN, "--layer", 12, "--op", "reduce_scatter", pin)
    assert {"numerics.pin[0] wants all_reduce" in o["reason"] for o in pinned["alternatives"]} == {True}
    free = answer("explain", PLAIN, "--layer", 13, "--op", "reduce_scatter", pin)
    assert any(o["legal"] for o in free["alternatives"])


def test_an_op_that_the_executor_lacks_is_answered_with_the_executor() -> None:
    explanation = answer("explain", "qwen3-32b-h200-tp2", "--set=executor=vllm", "--op", "quantized_all_reduce")
    assert explanation["alternatives"]
    assert all("executor vllm" in o["reason"] for o in explanation["alternatives"])


def test_an_op_without_room_is_answered_with_the_limit() -> None:
    limit = "--set=limits.activation_memory_gb=0.9"
    explanation = answer("explain", "qwen3-32b-l40s-tp4", "--op", "int8_all_reduce", limit)
    assert any("0.9 GB" in o["reason"] for o in explanation["alternatives"])


def test_mixed_comm_is_refused_for_want_of_attention_dp() -> None:
    explanation = answer("explain", PLAIN, "--op", "all_reduce_all_gather")
    assert all("attn_dp is 1" in o["reason"] for o in explanation["alternatives"])
    assert explanation["alternatives"]


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("layer", [0, 93])
def test_attention_dp_is_explained_at_every_boundary(boundary: str, layer: int) -> None:
    place = () if boundary in FORWARD_BOUNDARIES else ("--layer", layer)
    explanation = answer("explain", ATTENTION_DP, "--mode", "decode", "--boundary", boundary, *place)
    assert explanation["chosen"]["legal"]
    if boundary == "attn_out":
        assert names(explanation, legal=True) >= {"all_reduce", "reduce_scatter", "all_reduce_all_gather"}


def test_the_breakdown_adds_up_for_a_person_too() -> None:
    out = run("explain", R1, "--layer", 12).out
    assert "Chosen for" in out and "Whole step" in out and "Not possible here" in out
    assert "all_reduce(residual=fold)" in out


@pytest.mark.parametrize(
    ("options", "field", "accepted"),
    [
        (("--layer", 61), "layer", "0-60"),
        (("--layer", -1), "--layer", "from 0 to 9999"),
        (("--boundary", "attn"), "boundary", "attn_in"),
        (("--boundary", "head_in", "--layer", 3), "layer", "belongs to no layer"),
        (("--mode", "prefil"), "--mode", "'prefill'"),
        (("--mode", "mixed"), "--mode", "decode"),
        (("--tokens", 0), "--tokens", "from 1 to 4194304"),
        (("--tokens", 16385), "--tokens", "1 to 16384"),
        (("--op", "int8"), "--op", "'int8_all_reduce'"),
        (("--strategy", "no.yaml"), None, "no such file"),
    ],
)
def test_a_place_that_is_not_there_is_refused(options: tuple[object, ...], field: str | None, accepted: str) -> None:
    error = refused("explain", R1, *options)
    assert error["field"] == field
    assert accepted in error["message"]


# ---- the choices of a file -------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    answer("plan", R1, "-o", path)
    return path


@pytest.mark.slow
def test_a_file_is_explained_like_the_plan_it_holds(file: Path) -> None:
    for boundary in BOUNDARIES:
        place = ("--boundary", boundary, "--tokens", 4096)
        assert answer("explain", R1, *place, "--strategy", file) == answer("explain", R1, *place)


def test_a_hand_edit_is_explained_as_it_stands_and_what_it_costs(file: Path) -> None:
    """The last layer leaves a shard, as those before it do; the planner's own choice there is then an alternative."""
    lines = file.read_text().splitlines()
    most = next(line for line in lines if "layers: 1-59" in line)
    last, after = lines[lines.index(most) + 1], lines[lines.index(most) + 2]
    assert "layers: 60" in last
    edited = [most.replace("1-59", "1-60"), "    head_in: {all_gather: {impl: commplan_triton}}", after]
    file.write_text("\n".join(lines).replace("\n".join([most, last, after]), "\n".join(edited), 1) + "\n")
    place = ("--mode", "decode", "--boundary", "mlp_out", "--layer", 60, "--tokens", 512)
    explanation, by_one_kernel = answer("explain", R1, *place, "--strategy", file), {"impl": "commplan_triton_norm"}
    assert explanation["chosen"]["ops"] == {"mlp_out": {"reduce_scatter": by_one_kernel}}
    best = min(explanation["alternatives"], key=lambda o: (not o["legal"], o["step_us"]))
    planned = answer("explain", R1, *place)["chosen"]
    assert best["ops"] == planned["ops"] == {"mlp_out": {"all_reduce": by_one_kernel}}
    assert best["step_us"] == planned["step_us"]
    assert best["slower_by_us"] == pytest.approx(best["step_us"] - explanation["chosen"]["step_us"])


def test_a_file_for_another_model_split_or_mode_is_refused(file: Path, tmp_path: Path) -> None:
    expected = {
        (R1, "--set=parallelism.tp=4"): "parallelism.tp",
        ("qwen3-32b-h200-tp2",): "model.fingerprint",
        (R1, "--set=modes.mixed={tokens: [1, 8], sequence_tokens: 8, context_tokens: 8, decode_fraction: 0.5}",
         "--mode", "mixed"): "modes.mixed",
        (R1, "--tokens", "32768"): "--tokens",
    }  # fmt: skip
    for arguments, field in expected.items():
        error = refused("explain", *arguments, "--strategy", file)
        assert (error["file"], error["field"]) == (str(file), field)


def test_an_illegal_file_is_refused_before_anything_is_explained(file: Path) -> None:
    planned, gather = file.read_text(), "mlp_in: {all_gather: {impl: commplan_triton}}, "
    assert gather in planned
    file.write_text(planned.replace(gather, "", 1))
    error = refused("explain", R1, "--strategy", file)
    assert error["file"] == str(file)


def test_a_step_that_waits_for_the_host_says_so_and_a_replayed_one_does_not() -> None:
    asked = ("explain", "deepseek-r1-h200-tp2", "--mode", "prefill", "--tokens", "1024", "--layer", "5")
    text = run(*asked).out
    assert "of which the device waits" in text
    assert "for eager launches of the host" in text
    assert answer(*asked)["launch"] == "eager"
    assert answer(*asked)["host_wait_us"] > 0
    graph = answer(*asked, "--set", "modes.prefill.launch=graph")
    assert (graph["launch"], graph["host_wait_us"]) == ("graph", 0)


def test_a_measured_step_is_told_by_how_much_it_scales_the_model() -> None:
    asked = ("explain", R1, "--mode", "prefill", "--tokens", "4096", "--layer", "5")
    text = run(*asked, "--set", "modes.prefill.measured_step_us={4096: 415000}").out
    assert "By the measured step, GEMMs and attention take 1." in text
    assert answer(*asked)["compute_factor"] == 1
    assert (
        "shorter than the communication"
        in refused(*asked, "--set", "modes.prefill.measured_step_us={4096: 41}")["message"]
    )


def test_a_plan_says_what_share_of_a_step_waits_for_the_host() -> None:
    text = run("plan", "deepseek-v3-a3-tp16").out
    assert "A share for the host: so much of the step the device waits for eager launches." in text
    ranges = answer("plan", "deepseek-v3-a3-tp16")["modes"]["prefill"]
    share = ranges[0]["host_wait_us"] / ranges[0]["step_us"]
    assert share > 0.01
    assert f"{share:.0%} host" in text
