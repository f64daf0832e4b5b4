"""What counts as the same answer: bit by bit, or within the bound of a class; and up to where a text is compared."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.strategy.file import StrategyFile, places
from commplan.runtime.servers.sglang.line import typed

FAKE = Path(__file__).parent / "fake_server.py"


def answer(tokens: list[int], prefill: list[float], decode: list[float]) -> dict[str, Any]:
    return {"tokens": tokens, "prefill": prefill, "decode": decode}


def rows(
    bench, wanted: dict[str, Any], found: dict[str, Any], plan: str, family: str = "qwen3"
) -> dict[str, dict[str, Any]]:
    bound = bench.answers.BOUNDS[bench.proof.PLANS[plan].bound]
    compared = bench.answers.compared([wanted], [found], bound)
    return {row["kind"]: {**row, "plan": plan, "family": family} for row in compared}


WANTED = answer([5, 6, 7, 8], [-4.0, -8.0], [-2.0, -3.0, -1.0])


def test_the_smallest_difference_is_none_that_an_exact_plan_may_make(bench) -> None:
    same = rows(bench, WANTED, WANTED, "own_sum")
    assert {kind: bench.proof.verdict(row) for kind, row in same.items()} == dict.fromkeys(
        ("prefill", "decode"), "equal bit by bit"
    )
    off = answer([5, 6, 7, 8], [-4.0, -8.000001], [-2.0, -3.0, -1.0])
    assert bench.proof.verdict(rows(bench, WANTED, off, "own_sum")["prefill"]) == "NOT equal bit by bit"


def test_other_classes_have_a_bound_relative_to_the_largest_logprob(bench) -> None:
    off = answer([5, 6, 7, 8], [-4.0, -8.0], [-2.0, -3.3, -1.0])
    for plan, said in (("own_norm", "NOT within 0.08 of the largest"), ("int8_gather", "within 0.25 of the largest")):
        assert bench.proof.verdict(rows(bench, WANTED, off, plan)["decode"]) == said


def prefill(bench, errors: Mapping[int, float], family: str, plan: str = "own_norm") -> dict[str, Any]:
    """The row of 200 logprobs with these errors, by their places; the largest is 10."""
    wanted = [-10.0] * 200
    found = [value + errors.get(place, 0.0) for place, value in enumerate(wanted)]
    return rows(bench, answer([1], wanted, []), answer([1], found, []), plan, family)["prefill"]


def test_a_row_keeps_how_many_are_beyond_and_what_nine_tenths_do_not_exceed(bench) -> None:
    row = prefill(bench, {**dict.fromkeys(range(20), 0.5), 7: 0.9, 8: 1.1}, "qwen3_moe")
    assert (row["beyond"], row["share"], row["nine_tenths"]) == (2, 0.01, 0.0)
    assert prefill(bench, dict.fromkeys(range(21), 0.5), "qwen3_moe")["nine_tenths"] == 0.5


def test_only_where_tokens_go_to_experts_a_few_may_be_beyond(bench) -> None:
    row = prefill(bench, dict.fromkeys(range(6), 3.0), "qwen3_moe")
    said = "within 0.08 of the largest but for 6 of 200 tokens, whose experts may differ"
    assert bench.proof.verdict(row) == said
    assert bench.proof.verdict({**row, "family": "deepseek_v3"}) == said
    assert bench.proof.verdict({**row, "family": "qwen3"}) == "NOT within 0.08 of the largest"
    assert bench.proof.verdict(prefill(bench, {0: 0.9}, "qwen3")) == "NOT within 0.08 of the largest"
    more = prefill(bench, dict.fromkeys(range(7), 3.0), "qwen3_moe")
    assert bench.proof.verdict(more) == (
        "NOT within 0.08 of the largest: 7 of 200 tokens are not, where 3% may go to other experts"
    )


def test_of_an_exact_plan_no_token_may_be_beyond_whatever_its_experts(bench) -> None:
    assert bench.proof.verdict(prefill(bench, {0: 1e-6}, "qwen3_moe", "own_sum")) == "NOT equal bit by bit"


def test_nine_tenths_of_a_prefill_are_held_to_a_hundredth(bench) -> None:
    """A fault that touches every token a little is far within the bound of a single one."""
    for family in ("qwen3", "qwen3_moe"):
        assert bench.proof.verdict(prefill(bench, dict.fromkeys(range(21), 0.11), family)) == (
            "NOT nine tenths within 0.01 of the largest"
        )
        for little in (dict.fromkeys(range(20), 0.11), dict.fromkeys(range(200), 0.09)):
            assert bench.proof.verdict(prefill(bench, little, family)) == "within 0.08 of the largest"
    both = bench.proof.verdict(prefill(bench, dict.fromkeys(range(21), 0.9), "qwen3"))
    assert both == "NOT nine tenths within 0.01 of the largest, NOT all within 0.08 of the largest"


@pytest.mark.parametrize("nothing", [math.nan, -math.inf])
def test_what_is_no_number_is_beyond(bench, nothing: float) -> None:
    row = prefill(bench, {3: nothing}, "qwen3")
    assert (row["beyond"], row["error"]) == (1, math.inf)
    assert bench.proof.verdict(row) == "NOT within 0.08 of the largest"


def test_a_row_without_counts_gets_no_exception_and_is_shown_as_not_counted(bench) -> None:
    shared = {"card": "2 x some GPU", "family": "qwen3_moe", "graphs": "eager", "what": "logprobs"}
    new = {**shared, **prefill(bench, dict.fromkeys(range(6), 3.0), "qwen3_moe")}
    old = {name: value for name, value in new.items() if name not in ("beyond", "share", "nine_tenths")}
    assert bench.proof.verdict(old) == "NOT within 0.08 of the largest, how many are not was not counted"
    assert "beyond" not in bench.proof.shown([old], markdown=True)
    text = bench.proof.shown([{**old, "graphs": "graphs"}, new], markdown=True)
    assert "| 3.00e+00 | 0 | not counted | not counted | 10.0 | NOT within" in text
    assert "| 3.00e+00 | 0 | 0 | 6 (3.0%) | 10.0 | within" in text


def test_a_decode_is_compared_up_to_the_first_other_token(bench) -> None:
    """Logprob i of the decode is that of token i + 1: at the place of the other token they are of two tokens."""
    other = answer([5, 6, 9, 1], [-4.0, -8.0], [-2.0, -99.0, -99.0])
    row = rows(bench, WANTED, other, "own_norm")["decode"]
    assert (row["compared"], row["error"], row["same_texts"]) == (1, 0.0, "0 of 1")


def test_with_nothing_compared_nothing_is_proved(bench) -> None:
    other = answer([9, 1, 1, 1], [-4.0, -8.0], [-99.0, -99.0, -99.0])
    assert bench.proof.verdict(rows(bench, WANTED, other, "own_sum")["decode"]) == "nothing to compare"


def test_the_table_says_what_is_not_within_and_which_counters_differ(bench) -> None:
    shared = {"card": "2 x some GPU", "family": "qwen3", "graphs": "eager", "plan": "own_sum"}
    off = answer([5, 6, 7, 8], [-4.0, -8.5], [-2.0, -3.0, -1.0])
    told = [{**shared, "what": "logprobs", **row} for row in bench.answers.compared([WANTED], [off], 0.0)]
    text = bench.proof.shown([*told, {**shared, "what": "done", "differences": ["one"]}], markdown=True)
    assert text.startswith("2 x some GPU\n")
    counted = "5.00e-01 | 2.50e-01 | 5.00e-01 | 1 (50.0%)"
    assert f"| prefill | 1 of 1 | 2 | {counted} | 8.0 | NOT equal bit by bit | differ |" in text
    assert "| decode | 1 of 1 | 3 | 0 | 0 | 0 | 0 | 3.0 | equal bit by bit | differ |" in text


def write_config(bench, model: Path) -> Path:
    """Of a model as wide as the checkpoints, without its weights."""
    model.mkdir(parents=True)
    narrow = {"hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 4, "num_hidden_layers": 4}
    (model / "config.json").write_text(json.dumps(bench.shapes.SHAPES["qwen3-32b"].config | narrow))
    return model


@pytest.fixture(scope="module")
def plans(bench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, StrategyFile]:
    folder = tmp_path_factory.mktemp("proof")
    options = argparse.Namespace(out=folder, set=[], deployment=None, minutes=1, rows=folder / "rows.jsonl")
    model = write_config(bench, folder / "tiny")
    names = [name for name, plan in bench.proof.PLANS.items() if "qwen3" in plan.families]
    made = bench.proof.Proof(options)._plans("qwen3", model, names)
    assert list(made) == names
    return {name: file for name, (_, file) in made.items()}


@pytest.mark.slow
def test_answers_are_compared_with_the_unmodified_servers_and_kept(
    bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(bench, tmp_path / "checkpoints" / "qwen3")
    behaviours = iter(("serves", "off", "fails"))

    def fake(*_: object) -> list[str]:
        return [sys.executable, "-I", str(FAKE), next(behaviours)]

    monkeypatch.setattr(bench.proof, "like", fake)
    monkeypatch.setattr(bench.proof, "server_command", fake)
    monkeypatch.setattr(bench.proof, "counted", lambda server: ([], []))
    monkeypatch.setattr(bench.proof.signal, "signal", lambda *_: None)
    which = ["--families", "qwen3", "--graphs", "eager", "--plans", "own_sum,own_norm", "--minutes", "1.5"]
    monkeypatch.setattr(sys, "argv", ["proof.py", "--rows", str(tmp_path / "rows"), "--out", str(tmp_path), *which])
    bench.proof.main()
    said = capsys.readouterr().out
    assert "own_norm: is not up" in said and "no such kernel image is available" in said
    assert "not yet there, so call again: qwen3, eager: own_norm" in said
    verdicts = [line.split()[-5:] for line in said.splitlines() if line.startswith("qwen3")]
    assert verdicts == [["equal", "bit", "by", "bit", "exact"]] * 2
    assert said.count("NOT equal bit by bit") == 2


def ops(file: StrategyFile) -> set[tuple[str, str | None, str | None]]:
    return {
        (op.name, op.algorithm, op.impl)
        for of in file.modes.values()
        for ranges in of
        for layer, _, op in places(ranges)
        if layer is not None and op.kind.runs
    }


@pytest.mark.slow
def test_every_plan_has_at_every_sum_what_it_is_to_prove(plans: dict[str, StrategyFile]) -> None:
    norm = "commplan_triton_norm"
    assert ops(plans["own_sum"]) == {("all_reduce", None, "commplan_triton")}
    assert ops(plans["own_norm"]) == {("all_reduce", None, norm)}
    assert ops(plans["int8_gather"]) == {("int8_all_reduce", "gather", norm)}
    assert ops(plans["int8_two_shot"]) == {("int8_all_reduce", "two_shot", norm)}
    assert ops(plans["pushed"]) == {("all_reduce", "pushed", norm)}
    assert ops(plans["reading_ahead"]) == ops(plans["own_norm"])
    assert {("reduce_scatter", None, norm), ("all_gather", None, "commplan_triton")} <= ops(plans["shards"])
    assert {impl for _, _, impl in ops(plans["server_kernels"])} <= {None, "custom_one_shot"}


def test_only_families_that_can_have_a_plan_are_asked_for_it(bench, tmp_path: Path) -> None:
    options = argparse.Namespace(
        minutes=1,
        rows=tmp_path / "rows.jsonl",
        families=["qwen3", "deepseek_v3"],
        graphs=["eager"],
        plans=["own_norm", "pushed", "late_gather"],
    )
    assert list(bench.proof.Proof(options).missing()) == [
        ("qwen3", "eager", ["own_norm", "pushed"]),
        ("deepseek_v3", "eager", ["own_norm", "late_gather"]),
    ]


@pytest.mark.slow
def test_the_unmodified_server_has_graphs_and_norms_as_the_plans_server(bench, plans: dict[str, StrategyFile]) -> None:
    """Else batches are padded otherwise, and a GEMM of other rows may round otherwise, as does FlashInfer's norm."""
    file = plans["own_sum"]
    unmodified = typed(bench.proof.like(file, "model", ["--cuda-graph-bs-decode", "1"])[4:])
    planned = typed(bench.proof.server_command(file, "model", ["--cuda-graph-bs-decode", "1"])[4:])
    assert {n: v for n, v in unmodified.items() if "graph" in n} == {n: v for n, v in planned.items() if "graph" in n}
    assert {"enforce_disable_flashinfer_allreduce_fusion"} <= unmodified.keys() & planned.keys()
