"""`commplan export`: settings and limits for servers, in text and JSON; one error where there is nothing to say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .commandline import answer, refused, run

HERE = ("export", "vllm", "qwen3-32b-h200-tp2")
SLOW_ABOVE_10_MIB = (
    "hardware.tables=[{op: all_reduce, impl: flashinfer_fused, group_size: 2, width: 5120, "
    "message_bytes: [10240, 2621440, 10485760, 20971520, 167772160], latency_us: [3, 9, 40, 200, 1600]}]"
)


def test_vllm_is_told_one_limit_of_the_ranks_served() -> None:
    told = answer(*HERE, "--set", SLOW_ABOVE_10_MIB)
    limit = told["fused_tokens"]
    assert 1024 <= limit < 2048
    assert told["arguments"][:2] == ["--tensor-parallel-size", "2"]
    config = json.loads(told["arguments"][told["arguments"].index("--compilation-config") + 1])
    assert config == {"pass_config": told["pass_config"]}
    assert config["pass_config"]["fi_allreduce_fusion_max_size_mb"] * (1 << 20) == limit * 5120 * 2


def test_the_same_measurement_is_a_line_of_vllms_table() -> None:
    (entry,) = [e for e in answer(*HERE, "--set", SLOW_ABOVE_10_MIB)["source"] if e["line"]]
    assert (entry["table"], entry["key"], entry["line"]) == ("FI_ALLREDUCE_FUSION_MAX_SIZE_MB", "90", "2: 10,  # 10MB")
    assert entry["limit_bytes"] == 10485760
    assert entry["sources"][0] == "given by --set"


def test_the_text_says_what_to_start_what_differs_and_what_was_measured() -> None:
    out = run(*HERE, "--set", SLOW_ABOVE_10_MIB).out
    assert '  vllm serve MODEL --tensor-parallel-size 2 --compilation-config \'{"pass_config": ' in out
    assert "What it does not express" in out
    assert "prefill" in out and "of layers 0-63: planned all_reduce by" in out
    assert "    2: 10,  # 10MB\n" in out
    assert "    Measured: given by --set\n" in out


def test_nothing_is_told_where_its_defaults_do() -> None:
    told = answer(*HERE)
    assert (told["pass_config"], told["environment"], told["fused_tokens"]) == ({}, {}, None)
    assert "Nothing to tell" in run(*HERE).out


def test_another_executor_is_refused_and_not_replaced_in_silence() -> None:
    error = refused(*HERE, "--set", "executor=sglang")
    assert (error["field"], error["value"]) == ("executor", "sglang")


def test_a_plan_that_is_there_is_told_as_it_is(tmp_path: Path) -> None:
    """Edited by hand: the fused kernel at every token count, whatever it costs."""
    file = tmp_path / "plan.yaml"
    assert run("plan", HERE[2], "--set", "executor=vllm", "-o", file).code == 0
    same = answer(*HERE, "--strategy", file)
    assert (same["steps"], same["differences"]) == (answer(*HERE)["steps"], answer(*HERE)["differences"])
    text = file.read_text()
    edited = text.replace("attn_out: all_reduce", "attn_out: {all_reduce: {impl: flashinfer_fused}}")
    assert edited != text
    file.write_text(edited)
    long = {d["planned"] for d in answer(*HERE, "--strategy", file)["differences"] if d["boundary"] == "attn_out"}
    assert long == {"all_reduce by flashinfer_fused"}
    golden = Path(__file__).parents[2] / "golden" / "qwen3-32b-h200-tp2.yaml"
    assert "executor vllm" in refused(*HERE, "--strategy", golden)["message"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("export", "vllm", "qwen3-32b-a2-tp2"), "cannot use hccl"),
        (("export", "vllm", "no-such-deployment"), "no preset of that name"),
        (("export", "sglang-table", "qwen3-32b-l40s-tp4"), "over NVLink"),
        (("export", "sglang-table", "qwen3-32b-a2-tp2"), "joins NVIDIA devices"),
    ],
)
def test_what_cannot_be_exported_is_one_error(arguments: tuple[str, ...], words: str) -> None:
    assert words in refused(*arguments)["message"]


def test_data_parallel_attention_has_no_plan_for_vllm() -> None:
    assert "data parallelism" in refused("export", "vllm", "qwen3-235b-h200-dp4", code=3)["message"]


def test_sglang_keeps_its_default_where_tables_bear_it_out() -> None:
    told = answer("export", "sglang-table", "qwen3-235b-h200-tp8")
    assert (told["environment"], told["arguments"]) == ({}, [])
    stands = {e["ranks"]: e["stands_bytes"] for e in told["entries"] if e["reason"]}
    assert stands == {2: 16 << 20, 4: 16 << 20, 8: 16 << 20}
    out = run("export", "sglang-table", "qwen3-235b-h200-tp8").out
    assert "Nothing to tell: its default stands" in out
    assert "five algorithms" in out


def test_every_server_has_its_help_and_an_unknown_one_is_a_usage_error() -> None:
    out = run("export", "--help").out
    for server in ("sglang", "sglang-table", "vllm"):
        assert f"\n  {server} " in out
        assert "--json" in run("export", server, "--help").out
    result = run("export", "tgi", "--json")
    assert (result.code, result.json["error"]["kind"]) == (2, "usage")


def test_experts_over_all_ranks_are_told_to_vllm() -> None:
    given = ("export", "vllm", "qwen3-235b-h200-tp8", "--set=executor=vllm")
    assert "--enable-expert-parallel" not in answer(*given)["arguments"]
    told = answer(*given, "--set=parallelism.ep=8")["arguments"]
    assert told[:3] == ["--tensor-parallel-size", "8", "--enable-expert-parallel"]
