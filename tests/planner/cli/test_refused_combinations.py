"""Descriptions that are fine alone and cannot be together are refused with the field that has to change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .commandline import answer, refused

COMBINATIONS = [
    ("qwen3-0.6b-cpu-tp2", {"tp": 3}, "parallelism.tp", 3, "accepted: 1, 2, 4"),
    ("qwen3-0.6b-cpu-tp2", {"tp": 8}, "parallelism.tp", 8, "cpu-gloo has 4 devices"),
    ("qwen3-0.6b-cpu-tp2", {"tp": 4, "attn_dp": 3}, "parallelism.attn_dp", 3, "does not divide tp 4"),
    ("qwen3-0.6b-cpu-tp2", {"tp": 2, "ep": 4}, "parallelism.ep", 4, "does not divide tp 2"),
    ("qwen3-0.6b-cpu-tp2", {"ep": 2}, "parallelism.ep", 2, "no experts"),
    ("qwen3-0.6b-cpu-tp2", {"moe_backend": "all_to_all"}, "parallelism.moe_backend", "all_to_all", "tensor_parallel"),
    ("deepseek-v3-a3-tp16", {"ep": 8}, "parallelism.ep", 8, "ep must equal tp 16"),
    ("deepseek-v3-a3-tp16", {"tp": 32, "ep": 32}, "parallelism.tp", 32, "ascend-a3-16 has 16 devices"),
]


@pytest.mark.parametrize(("deployment", "split", "field", "value", "why"), COMBINATIONS)
def test_a_split_that_cannot_be(deployment: str, split: dict[str, Any], field: str, value: object, why: str) -> None:
    error = refused("plan", deployment, *(f"--set=parallelism.{key}={v}" for key, v in split.items()))
    assert (error["file"], error["field"], error["value"]) == ("--set", field, value)
    assert why in error["message"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("intermediate_size", 3073), ("num_key_value_heads", 16), ("num_attention_heads", 8)],
)
def test_a_model_that_does_not_split_evenly(field: str, value: int) -> None:
    """Over 4 ranks: an odd MLP width is refused, more or fewer heads than ranks are not."""
    arguments = ("plan", "qwen3-0.6b-cpu-tp2", "--set=parallelism.tp=4", f"--set=model.{field}={value}")
    if field == "intermediate_size":
        error = refused(*arguments)
        assert (error["field"], "intermediate_size 3073" in error["message"]) == ("parallelism.tp", True)
    else:
        assert answer(*arguments)["modes"]


def test_fewer_key_value_heads_than_ranks_is_legal() -> None:
    """4 key-value heads over 8 ranks: each is held twice."""
    assert answer("plan", "qwen3-235b-h200-tp8")["modes"]


def test_key_value_heads_that_neither_divide_nor_are_divided_are_refused() -> None:
    heads = ("--set=model.num_attention_heads=24", "--set=model.num_key_value_heads=6")
    error = refused("plan", "qwen3-0.6b-cpu-tp2", "--set=parallelism.tp=4", *heads)
    assert (error["field"], error["value"]) == ("parallelism.tp", 4)
    assert "num_key_value_heads 6" in error["message"]


@pytest.mark.parametrize(
    ("deployment", "executor"), [("kimi-k2.5-2xh20nodes-tp16", "transformers"), ("qwen3.5-397b-h200-dp8", "sglang")]
)
def test_an_executor_without_an_adapter_for_the_model(deployment: str, executor: str) -> None:
    error = refused("plan", deployment, f"--set=executor={executor}")
    assert (error["field"], error["value"]) == ("executor", executor)
    assert "plan_only" in error["message"]


def test_experts_behind_an_all_to_all_are_refused_where_the_executor_has_none() -> None:
    overrides = ("--set=executor=sglang", "--set=parallelism.ep=8", "--set=parallelism.moe_backend=all_to_all")
    error = refused("plan", "qwen3-235b-h200-dp4", *overrides)
    assert (error["field"], error["value"]) == ("parallelism.moe_backend", "all_to_all")
    assert "sglang runs tensor_parallel experts only" in error["message"]


SENSITIVITY = "schema: commplan/sensitivity/v1\nattn_out: {0}\nmlp_out: {0}\n"


@pytest.mark.parametrize(
    ("content", "field", "accepted"),
    [
        (SENSITIVITY.format([1.0] * 27), "attn_out", "28, not 27"),
        (SENSITIVITY.format([1.0] * 29), "attn_out", "28, not 29"),
        (SENSITIVITY.format([1.0] * 27 + [-1.0]), "attn_out[27]", "greater than 0"),
        (SENSITIVITY.format([1.0] * 27 + ["high"]), "attn_out[27]", "a plain number"),
        (SENSITIVITY.format([1.0] * 27 + [1e300]), "attn_out[27]", "less than"),
        (SENSITIVITY.format([1.0] * 28) + "attn_in: []\n", "attn_in", "'attn_out'"),
        ("schema: commplan/sensitivity/v2\nattn_out: [1.0]\nmlp_out: [1.0]\n", "schema", "commplan/sensitivity/v1"),
        ("schema: commplan/sensitivity/v1\nattn_out: [1.0]\n", "mlp_out", "missing"),
    ],
)
def test_a_sensitivity_file_that_does_not_fit_the_model(
    content: str, field: str, accepted: str, tmp_path: Path
) -> None:
    path = tmp_path / "sensitivity.yaml"
    path.write_text(content)
    error = refused("plan", "qwen3-0.6b-cpu-tp2", f"--set=numerics.sensitivity={path}")
    assert (error["file"], error["field"]) == (str(path), field)
    assert accepted in error["message"]


def test_a_sensitivity_file_that_is_not_there() -> None:
    error = refused("plan", "qwen3-0.6b-cpu-tp2", "--set=numerics.sensitivity=no.yaml")
    assert (error["file"], error["message"]) == ("no.yaml", "no such file")
