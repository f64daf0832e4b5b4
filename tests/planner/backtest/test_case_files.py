"""Case files are read strictly: what is wrong with one is said by field, and nothing is run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..cli.commandline import refused, run

CASE = """\
schema: commplan/backtest/v1
id: a-case
source: "invented for a test"
deployment: qwen3-0.6b-cpu-tp2
mode: prefill
tokens: 64
quantity: step_time
of: {strategy: tp_sp}
to: {strategy: all_reduce}
published: 1.0
low: 0.5
high: 2.0
"""
LATENCY = """\
schema: commplan/backtest/v1
id: a-latency
source: "invented for a test"
deployment: qwen3-0.6b-cpu-tp2
quantity: op_latency
op: {op: all_gather, impl: gloo, dtype: fp32, group_size: 2, message_bytes: 65536}
published: 100
low: 0
high: 100000
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "case.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", [CASE, LATENCY])
def test_a_good_case_is_run(tmp_path, text):
    assert run("backtest", written(tmp_path, text)).code == 0


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ("schema: commplan/backtest/v1", "schema: commplan/backtest/v2", "schema"),
        ("id: a-case\n", "", "id"),
        ("mode: prefill\n", "", "mode"),
        ("mode: prefill", "mode: mixed", "mode"),
        ("mode: prefill", "mode: nonsense", "mode"),
        ("tokens: 64\n", "", "tokens"),
        ("tokens: 64", "tokens: 0", "tokens[0]"),
        ("tokens: 64", "tokens: []", "tokens"),
        ("tokens: 64", "tokens: [64, sixty]", "tokens[1]"),
        ("tokens: 64", "tokens: 6.5", "tokens[0]"),
        ("step_time", "speed", "quantity"),
        ("step_time", "itl", "mode"),
        ("step_time", "op_latency", "of"),
        ("of: {strategy: tp_sp}\n", "", "of"),
        ("of: {strategy: tp_sp}", "of: best", "of"),
        ("of: {strategy: tp_sp}", "of: {}", "of"),
        ("of: {strategy: tp_sp}", "of: {strategy: tpsp}", "of.strategy"),
        ("of: {strategy: tp_sp}", "of: {strategy: tp_sp, ops: {mlp_out: all_reduce}}", "of"),
        ("of: {strategy: tp_sp}", "of: {ops: {}}", "of.ops"),
        ("of: {strategy: tp_sp}", "of: {ops: {mlp: all_reduce}}", "of.ops.mlp"),
        ("of: {strategy: tp_sp}", "of: {ops: {mlp_out: all_gather}}", "of.ops.mlp_out"),
        ("of: {strategy: tp_sp}", "of: {ops: {mlp_out: {int8_all_reduce: {}}}}", "of.ops.mlp_out"),
        ("published: 1.0", "published: fast", "published"),
        ("published: 1.0", "published: .nan", "published"),
        ("published: 1.0\n", "", "published"),
        ("low: 0.5", "low: 3", "low"),
        ("high: 2.0", "high: .inf", "high"),
        ("high: 2.0", "high: 2.0\nhigher: 3", "higher"),
        ("high: 2.0", "high: 2.0\nset: [1]", "set"),
        ("high: 2.0", "high: 2.0\nset: {a=b: 1}", "set.a=b"),
        ("high: 2.0", "high: 2.0\nop: {op: all_gather}", "op"),
        ("high: 2.0", "high: 2.0\nset: {parallelism.tq: 1}", "parallelism.tq"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, before, after, field):
    error = refused("backtest", written(tmp_path, CASE.replace(before, after)))
    assert (error["field"] or "").startswith(field)


@pytest.mark.parametrize(
    ("published", "low", "high", "field"),
    [
        (0.95, 0.9, 1.01, "high"),
        (0.95, 0.9, 1.0, "high"),
        (1.05, 0.99, 1.1, "low"),
        (1.021, 1.0, 1.1, "low"),
    ],
)
def test_a_tolerance_that_accepts_the_wrong_sign_is_refused(tmp_path, published, low, high, field):
    text = CASE.replace("published: 1.0", f"published: {published}")
    text = text.replace("low: 0.5", f"low: {low}").replace("high: 2.0", f"high: {high}")
    error = refused("backtest", written(tmp_path, text))
    assert (error["field"], error["value"]) == (field, low if field == "low" else high)
    assert "half of the published gain" in error["message"]


@pytest.mark.parametrize(("published", "low", "high"), [(0.95, 0.5, 0.999), (1.05, 1.001, 2), (0.985, 0.9, 1.1)])
def test_a_tolerance_on_the_side_of_the_published_gain_or_of_hardly_any_gain_is_read(tmp_path, published, low, high):
    text = CASE.replace("published: 1.0", f"published: {published}")
    text = text.replace("low: 0.5", f"low: {low}").replace("high: 2.0", f"high: {high}")
    assert run("backtest", written(tmp_path, text)).code == 0


def test_a_time_may_lie_anywhere_about_1(tmp_path):
    text = CASE.replace("to: {strategy: all_reduce}\n", "").replace("published: 1.0", "published: 1.5")
    assert run("backtest", written(tmp_path, text)).code == 0


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ("op: all_gather", "op: gather", "op.op"),
        ("impl: gloo", "impl: mpi", "op.impl"),
        ("dtype: fp32", "dtype: fp8", "op.dtype"),
        ("group_size: 2", "group_size: 1", "op.group_size"),
        ("message_bytes: 65536", "message_bytes: 0", "op.message_bytes"),
        ("message_bytes: 65536", "message_bytes: 1e99", "op.message_bytes"),
        ("op: {", "of: optimum\nop: {", "of"),
        ("op: {op: all_gather, impl: gloo, dtype: fp32, group_size: 2, message_bytes: 65536}\n", "", "op"),
    ],
)
def test_what_is_wrong_with_a_collective_is_named(tmp_path, before, after, field):
    assert refused("backtest", written(tmp_path, LATENCY.replace(before, after)))["field"] == field


@pytest.mark.parametrize("length", range(1, len(CASE), 7))
def test_a_truncated_case_is_refused(tmp_path, length):
    cut = CASE[:length]
    whole = {CASE[: i + 1] for i, c in enumerate(CASE) if c == "\n"} & {cut}
    result = run("backtest", written(tmp_path, cut))
    assert result.code == 2 or (whole and "high" in cut)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "[]",
        "a",
        "a: *b\n",
        "a: !!python/object:os.system x\n",
        "{" * 50,
        "\0",
        "id: a\nid: b\n",
        "--- {}\n--- {}\n",
    ],
)
def test_hostile_files_are_refused(tmp_path, text):
    refused("backtest", written(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path):
    assert refused("backtest", tmp_path / "none.yaml")["file"].endswith("none.yaml")


def test_two_cases_of_one_id_are_refused(tmp_path):
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    first.write_text(CASE)
    second.write_text(CASE)
    error = refused("backtest", first, second)
    assert (error["field"], error["value"]) == ("id", "a-case")


def test_one_bad_case_stops_all_before_anything_is_printed(tmp_path):
    good, bad = tmp_path / "1.yaml", tmp_path / "2.yaml"
    good.write_text(CASE)
    bad.write_text(CASE.replace("id: a-case", "id: other").replace("high: 2.0", "high: two"))
    result = run("backtest", good, bad)
    assert (result.code, result.out) == (2, "")
