"""Good input whose constraints leave no plan: exit code 3, and the constraint that does it is named."""

from __future__ import annotations

import re
from typing import Any

import pytest

from .commandline import answer, refused

L40S, SGLANG = "qwen3-32b-l40s-tp4", "qwen2.5-72b-h100-tp4"
INT8, SCATTER = "{op: int8_all_reduce, boundary: attn_out}", "{op: reduce_scatter, boundary: attn_out}"

NO_PLAN: list[tuple[str, list[str], str, list[str]]] = [
    (
        L40S,
        [f"numerics.pin=[{INT8}]", "numerics.forbid=[{op: int8_all_reduce}]"],
        "numerics.pin[0]",
        ["int8_all_reduce: forbidden by numerics.forbid[0]"],
    ),
    (
        L40S,
        [f"numerics.pin=[{INT8}]", "numerics.loosest=reordered"],
        "numerics.pin[0]",
        ["is quantized, and numerics.loosest is reordered"],
    ),
    (L40S, [f"numerics.pin=[{INT8}]", "numerics.error_budget=0.001"], "numerics.error_budget", ["0.07"]),
    (L40S, [f"numerics.pin=[{SCATTER}]", "numerics.loosest=exact"], "numerics.pin[0]", ["numerics.loosest is exact"]),
    (L40S, ["numerics.pin=[{op: none, boundary: attn_out}]"], "numerics.pin[0]", ["0.attn_out", "still due"]),
    (
        L40S,
        ["numerics.forbid=[{op: none, boundary: mlp_in}, {op: reduce_scatter}]"],
        "modes.prefill",
        ["0.mlp_in", "numerics.forbid"],
    ),
    (
        L40S,
        ["numerics.pin=[{op: latent_all_gather, boundary: attn_in}]"],
        "numerics.pin[0]",
        ["attn_in", "q_lora_rank"],
    ),
    (L40S, ["numerics.pin=[{op: none, boundary: mlp_out, layers: 7}]"], "numerics.pin[0]", ["7.mlp_out"]),
    (L40S, ["numerics.pin=[{op: none, boundary: mlp_out, modes: [decode]}]"], "numerics.pin[0]", ["mlp_out in decode"]),
    (L40S, ["limits.activation_memory_gb=0.001"], "limits.activation_memory_gb", ["0.001 GB", "prefill"]),
    (
        SGLANG,
        ["numerics.pin=[{op: all_gather, boundary: head_in}]"],
        "numerics.pin[0]",
        ["executor sglang: SGLang picks the rows that need logits from complete rows"],
    ),
    (
        "qwen3-235b-h200-dp4",
        ["executor=sglang", "numerics.pin=[{op: reduce_scatter, boundary: mlp_out}]"],
        "modes.prefill",
        ["no legal op at head_in", "executor sglang", "whole DP groups"],
    ),
]


@pytest.mark.parametrize(("deployment", "overrides", "field", "named"), NO_PLAN)
def test_no_plan_is_left(deployment: str, overrides: list[str], field: str, named: list[str]) -> None:
    error = refused("plan", deployment, *(f"--set={text}" for text in overrides), code=3)
    assert error["kind"] == "no_legal_plan"
    given = any(field.partition("[")[0] == text.partition("=")[0] for text in overrides)
    assert error["file"] == "--set" if given else error["file"].endswith(f"{deployment}.yaml")
    assert error["field"] == field
    for name in named:
        assert name in error["message"]


STAGED = "{op: int8_all_reduce, impl: host_staged_norm, boundary: mlp_out}"
STAGED_GROUPS = "{op: quantized_all_reduce, impl: host_staged_norm, boundary: mlp_out}"


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (
            [f"numerics.pin=[{STAGED}]"],
            "int8_all_reduce by host_staged_norm: host_staged_norm has no formula, and h200-2 no table of it: "
            "run commplan calibrate",
        ),
        (
            ["hardware=h200-2-no-peer", f"numerics.pin=[{STAGED_GROUPS}]", "numerics.wire_formats=[fp8_e4m3]"],
            "quantized_all_reduce by host_staged_norm: no calibration of h200-2-no-peer has a table of it: "
            "run commplan calibrate",
        ),
        (
            ["hardware=h200-2-no-peer", f"numerics.pin=[{STAGED}]", "numerics.forbid=[{op: int8_all_reduce}]"],
            "int8_all_reduce by host_staged_norm: forbidden by numerics.forbid[0]",
        ),
    ],
)
def test_a_pinned_impl_is_refused_by_its_own_reason(overrides: list[str], why: str) -> None:
    quantized = "--set=numerics.loosest=quantized"
    error = refused("plan", "qwen3-32b-h200-tp2", quantized, *(f"--set={text}" for text in overrides), code=3)
    assert (error["file"], error["line"], error["field"]) == ("--set", None, "numerics.pin[0]")
    assert why in error["message"]


def test_a_pin_that_stands_in_a_file_is_named_by_its_line(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "schema: commplan/deployment/v1\nname: mine\nmodel: qwen3-32b\nhardware: h200-2\nexecutor: transformers\n"
        "parallelism: {tp: 2}\nmodes:\n  decode: {tokens: [1, 16], context_tokens: 64}\n"
        f"numerics:\n  loosest: quantized\n  pin:\n  - {STAGED}\n"
    )
    error = refused("plan", file, "--set=modes.decode.tokens=[1, 8]", code=3)
    assert (error["file"], error["line"], error["field"]) == (str(file), 12, "numerics.pin[0]")


def test_explain_answers_the_same_as_plan_where_no_plan_is_left() -> None:
    overrides = ("--set=limits.activation_memory_gb=0.001",)
    assert refused("explain", L40S, *overrides, code=3) == refused("plan", L40S, *overrides, code=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        [f"numerics.pin=[{INT8}]"],
        [f"numerics.pin=[{INT8}]", "numerics.error_budget=0.08"],
        [f"numerics.pin=[{SCATTER}]"],
        ["numerics.forbid=[{op: all_reduce}]"],
        ["numerics.forbid=[{op: int8_all_reduce, layers: 0-31}]"],
    ],
)
def test_the_same_constraints_loosened_leave_a_plan_that_keeps_them(overrides: list[str]) -> None:
    options = [f"--set={text}" for text in overrides]
    plan = answer("plan", L40S, *options)
    assert plan["modes"]
    chosen = _chosen_op(options)
    for text in overrides:
        if text.startswith("numerics.pin"):
            assert chosen in text
        elif text.startswith("numerics.forbid"):
            assert f"op: {chosen}}}" not in text and f"op: {chosen}," not in text


def _chosen_op(options: list[str]) -> str:
    spelled: Any = answer("explain", L40S, "--layer", 12, *options)["chosen"]["ops"]["attn_out"]
    return spelled if isinstance(spelled, str) else next(iter(spelled))


@pytest.mark.slow
def test_a_memory_limit_names_the_largest_count_that_keeps_it() -> None:
    limit = "--set=limits.activation_memory_gb=0.1"
    error = refused("plan", "qwen3-32b-h200-tp2", limit, code=3)
    found = re.search(r"(\d+) is the largest count", error["message"])
    assert error["field"] == "limits.activation_memory_gb"
    assert found
    largest = int(found[1])
    assert answer("plan", "qwen3-32b-h200-tp2", limit, f"--set=modes.prefill.tokens=[1, {largest}]")["modes"]
    refused("plan", "qwen3-32b-h200-tp2", limit, f"--set=modes.prefill.tokens=[1, {largest + 1}]", code=3)
