"""Every command says what a plan gains over the stock server, its best flag and the library, in this order; and first
of all where the server is faster than the plan."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import commplan

from .commandline import answer, run

R1 = "deepseek-r1-h20-tp8"
FLAG = "--enable-attn-tp-input-scattered"
# The pin forbids a plan what the flag does; by itself the plan would gather latents late too.
IN_SGLANG = ("--set", "executor=sglang", "--set", "numerics.pin=[{op: all_reduce, boundary: mlp_out}]")
OLD = Path(__file__).parents[1] / "strategy" / "file" / "plans" / "late_gather.yaml"
KEYS = {"stock_us", "best_stock_flag", "library_us"}


def in_order(text: str, *words: str) -> bool:
    """True if the words follow each other in a text."""
    places = [text.find(word) for word in words]
    return -1 not in places and places == sorted(places)


@pytest.fixture(scope="module")
def losing(tmp_path_factory) -> Path:
    """A plan for SGLang that is pinned to whole rows: the late gather of a flag beats it in long prefills."""
    path = tmp_path_factory.mktemp("plans") / "losing.yaml"
    answer("plan", R1, *IN_SGLANG, "-o", path)
    return path


def test_plan_tells_its_gains_in_order_within_a_page() -> None:
    out = run("plan", R1).out
    assert in_order(out, "vs stock", "vs its best flag", "vs library", "vs best uniform")
    assert "vs all_reduce" not in out
    assert f"x {FLAG}" in out
    assert "stock is SGLang 0.5.23 by its defaults" in out
    assert max(map(len, out.splitlines())) <= 120


def test_a_flag_that_beats_the_plan_is_said_before_all_else() -> None:
    said = run("plan", R1, *IN_SGLANG).out.partition("\n\n")[0].splitlines()
    assert said[0].startswith(f"The stock flag {FLAG} is faster than this plan in prefill of ")
    assert any(FLAG in line and "-16384 tokens, by up to " in line for line in said)
    by_itself = ["by itself" in line for line in said]
    assert by_itself == sorted(by_itself), "flags come first"


def test_a_plan_that_nothing_beats_says_nothing_of_rivals() -> None:
    out = run("plan", "qwen3-32b-h200-tp2").out
    assert "is faster than this plan" not in out


def test_over_a_flag_that_hurts_the_server_no_gain_is_told() -> None:
    """Without peer access its sequence parallelism takes longer than its all-reduce: 1.3x over that is no merit."""
    sets = ("qwen3-32b-h200-tp2", "--set", "hardware=h200-2-no-peer", "--set", "executor=sglang")
    for each in answer("plan", *sets)["modes"]["prefill"]:
        assert each["best_stock_flag"]["step_us"] > each["stock_us"]
    out = run("plan", *sets).out
    assert "none helps" in out and "--enable-layernorm-sp" not in out
    sweep = run("what-if", *sets, "--vary", "tokens=1024,4096").out
    assert "The stock server's best flag" not in sweep
    assert "no flag of it helps" in run("explain", *sets, "--tokens", "4096").out


def test_plan_json_has_the_three_beside_all_reduce_us() -> None:
    modes = answer("plan", R1, *IN_SGLANG)["modes"]
    for mode, ranges in modes.items():
        for item in ranges:
            assert set(item) >= KEYS | {"all_reduce_us"}
            assert item["stock_source"] in ("table (transferred)", "formula")
            assert item["stock_us"] > 0 and item["library_us"] >= item["all_reduce_us"]
            if mode == "decode":
                assert item["best_stock_flag"] is None  # the flag is for prefill
            else:
                assert item["best_stock_flag"]["name"] == FLAG
                assert item["best_stock_flag"]["step_us"] > 0
    (*_, last) = modes["prefill"]
    assert last["best_stock_flag"]["step_us"] < last["step_us"]
    flags = [rival for rival in last["faster_rivals"] if rival["flag"] == FLAG]
    assert [rival["tokens"][1] for rival in flags] == [16384]


def test_explain_names_what_the_server_runs_at_the_boundary() -> None:
    at = ("explain", R1, *IN_SGLANG, "--mode", "prefill", "--layer", 12, "--tokens", 1024)
    assert run(*at[:-1], 16384).out.startswith(f"The stock flag {FLAG} is faster than this plan in prefill of 16384")
    found = answer(*at)
    assert set(found) >= KEYS
    plain, flagged = found["stock"]
    assert (plain["flag"], plain["impl"], plain["ops"]) == (
        None,
        "flashinfer_fused",
        {"attn_out": {"all_reduce": {"impl": "flashinfer_fused"}}},
    )
    assert (flagged["flag"], flagged["impl"]) == (FLAG, "custom_one_shot")
    out = run(*at).out
    assert in_order(out, "over the stock server", f"over {FLAG}", "over plain all-reduce by nccl")
    assert "The stock server here (SGLang 0.5.23 by its defaults): all_reduce by flashinfer_fused, " in out
    assert " us (formula)\n" in out
    assert f"With {FLAG}: all_reduce(residual=fold) by custom_one_shot, " in out


def test_explain_says_that_a_plan_may_not_have_the_servers_fused_kernel() -> None:
    options = answer("explain", R1, *IN_SGLANG, "--layer", 12, "--tokens", 1024)["alternatives"]
    (fused,) = [o for o in options if o["ops"]["attn_out"] == {"all_reduce": {"impl": "flashinfer_fused"}}]
    assert not fused["legal"] and "SGLang decides by itself" in fused["reason"]


def test_what_if_tells_the_gains_at_every_point() -> None:
    sweep = ("what-if", R1, *IN_SGLANG, "--vary", "tokens=1,4096")
    for point in answer(*sweep)["points"]:
        assert set(point) >= KEYS
    out = run(*sweep).out
    assert out.startswith(f"The stock flag {FLAG} is faster than the plan at 1 of 2 points\n")
    assert in_order(out, "vs stock", "vs its best flag", "vs library")
    assert f"The stock server's best flag is {FLAG}." in out


def test_what_if_writes_the_rivals_of_every_row(tmp_path: Path) -> None:
    run("what-if", R1, *IN_SGLANG, "--vary", "tokens=4096", "--vary", "tp=8,16", "--csv", tmp_path / "sweep.csv")
    header, row, *_, illegal = (tmp_path / "sweep.csv").read_text().splitlines()
    assert header.endswith(",stock_us,best_stock_flag,best_stock_flag_us,library_us")
    assert f",{FLAG}," in row
    assert len(next(csv.reader([illegal]))) == len(header.split(","))  # its reason has commas


def test_diff_tells_the_gains_of_both_files(losing: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    answer("plan", R1, "-o", other)
    gains = answer("diff", losing, other)["gains"]
    assert all(set(r) >= KEYS for side in gains.values() for ranges in side.values() for r in ranges)
    out = run("diff", losing, other).out
    assert out.startswith(f"{losing}: The stock flag {FLAG} is faster than this plan")
    assert in_order(out, f"Gains of {losing}", f"Gains of {other}")


def test_a_file_that_is_older_than_the_gains_is_read_and_tells_none() -> None:
    assert run("validate", OLD).code == 0
    gains = answer("diff", OLD, OLD)["gains"]["before"]["prefill"]
    assert all(r["stock_us"] is None and r["step_us"] is not None for r in gains)
    assert "Gains" not in run("diff", OLD, OLD).out
    assert (
        answer("explain", R1, "--set", "executor=transformers", "--set", "dtypes.weights=bf16", "--strategy", OLD)[
            "stock_us"
        ]
        > 0
    )


@pytest.mark.parametrize("rule", ["error_budget=0.02", "forbid=[{op: int8_all_reduce}]", "loosest=reordered"])
def test_a_flag_that_breaks_the_numerics_of_a_deployment_is_no_rival(rule: str) -> None:
    flag, quantized = "--enable-quant-communications", "--set=numerics.loosest=quantized"
    assert flag in run("plan", "qwen3-32b-a2-tp2", quantized, "--brief").out
    assert flag not in run("plan", "qwen3-32b-a2-tp2", quantized, f"--set=numerics.{rule}", "--brief").out


@pytest.mark.slow
def test_a_plan_without_graphs_beside_a_server_with_them_is_told_apart() -> None:
    plan = ("plan", "qwen3-235b-h200-dp4", "--set=executor=sglang")  # no graphs under a plan with attention DP
    out = run(*plan, "--set=modes.prefill.launch=graph").out
    assert "--set modes.decode.launch=graph" in out
    assert "--set modes.prefill.launch=graph" not in out


def test_a_plan_for_the_server_has_the_graphs_that_the_server_has_by_itself() -> None:
    ranges = answer("plan", "qwen3-32b-h200-tp2", "--set=executor=sglang")["modes"]["prefill"]
    assert all(r["host_wait_us"] == 0 and r["stock_us"] >= r["step_us"] for r in ranges)
    assert not any(rival["flag"] is None for r in ranges for rival in r["faster_rivals"])


def test_with_mla_the_server_captures_no_longer_prefills_than_8192_tokens_and_a_plan_neither() -> None:
    asked = ("explain", R1, "--set=executor=sglang", "--mode=prefill", "--layer=5")
    launches = [answer(*asked, f"--tokens={tokens}")["launch"] for tokens in (8192, 8193)]
    assert launches == ["graph", "eager"]


@pytest.mark.parametrize("tokens", [216, 220])
def test_a_plan_of_the_servers_own_ops_gains_nothing_over_it(tokens: int) -> None:
    """The cheapest plan alternates there, and is not taken: nor is what it waits for the host."""
    plan = commplan.plan("qwen3-32b-l40s-tp4", set=[f"modes.prefill.tokens=[{tokens},{tokens}]"])
    (held,) = plan.strategy.modes["prefill"]
    ops = {str(op) for layer in held.layers for op in (layer.attn_out, layer.mlp_out)}
    assert ops == {"all_reduce"} and held.predicted.host_wait_us > 0
    assert held.predicted.stock_us == pytest.approx(held.predicted.step_us, rel=1e-9)
    told = answer("what-if", "qwen3-32b-l40s-tp4", "--mode", "prefill", "--vary", f"tokens={tokens}", "--json")
    assert told["points"][0]["stock_us"] == pytest.approx(held.predicted.stock_us, rel=1e-4)
