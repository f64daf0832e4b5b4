"""A value that makes no sense is refused with its field, itself, and what would be accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .commandline import answer, refused
from .deployments import deployment

TP, SEQUENCE, SPAN = "{tp: 2", "sequence_tokens: 32", "tokens: [1, 64]"
BUDGET, MEMORY = "loosest: reordered, error_budget: null", "activation_memory_gb: null"
PIN, FORBID = "pin: []", "forbid: []"
A_WHOLE_NUMBER, A_PLAIN_NUMBER, A_TEXT, A_LIST = "a whole number", "a plain number", "a text", "a list"

NUMBERS = [
    ("text", TP, '{tp: "2"', "parallelism.tp", "2", A_PLAIN_NUMBER),
    (
        "text with a unit",
        SEQUENCE,
        "sequence_tokens: 32 tokens",
        "modes.prefill.sequence_tokens",
        "32 tokens",
        A_PLAIN_NUMBER,
    ),
    ("float", TP, "{tp: 2.0", "parallelism.tp", 2.0, A_WHOLE_NUMBER),
    ("boolean", TP, "{tp: true", "parallelism.tp", True, A_WHOLE_NUMBER),
    ("null", TP, "{tp: null", "parallelism.tp", None, A_WHOLE_NUMBER),
    ("list", TP, "{tp: [2]", "parallelism.tp", "[2]", A_WHOLE_NUMBER),
    ("zero", TP, "{tp: 0", "parallelism.tp", 0, "greater than 0"),
    ("negative", TP, "{tp: -2", "parallelism.tp", -2, "greater than 0"),
    ("NaN", TP, "{tp: .nan", "parallelism.tp", "nan", A_WHOLE_NUMBER),
    ("infinity", TP, "{tp: .inf", "parallelism.tp", "inf", A_WHOLE_NUMBER),
    ("hexadecimal", TP, "{tp: 0x2", "parallelism.tp", "0x2", A_PLAIN_NUMBER),
    ("underscores", TP, "{tp: 1_0", "parallelism.tp", "1_0", A_PLAIN_NUMBER),
    ("huge", TP, "{tp: " + "9" * 30, "parallelism.tp", int("9" * 30), "less than or equal to"),
    ("longer than Python reads", TP, "{tp: " + "9" * 5000, "parallelism.tp", "inf", A_WHOLE_NUMBER),
    ("huge work", SEQUENCE, "sequence_tokens: " + "9" * 30, "modes.prefill.sequence_tokens", int("9" * 30), "less"),
    ("negative prefix", "prefix_tokens: 0", "prefix_tokens: -1", "modes.prefill.prefix_tokens", -1, "equal to 0"),
    ("budget NaN", BUDGET, "loosest: quantized, error_budget: .nan", "numerics.error_budget", "nan", "finite"),
    ("budget infinity", BUDGET, "loosest: quantized, error_budget: .inf", "numerics.error_budget", "inf", "finite"),
    ("budget overflow", BUDGET, "loosest: quantized, error_budget: 1e999", "numerics.error_budget", "inf", "finite"),
    ("budget zero", BUDGET, "loosest: quantized, error_budget: 0", "numerics.error_budget", 0, "greater than 0"),
    ("budget negative", BUDGET, "loosest: quantized, error_budget: -1", "numerics.error_budget", -1, "greater than 0"),
    (
        "budget in per cent",
        BUDGET,
        "loosest: quantized, error_budget: 1%",
        "numerics.error_budget",
        "1%",
        A_PLAIN_NUMBER,
    ),
    ("budget huge", BUDGET, "loosest: quantized, error_budget: 1e300", "numerics.error_budget", 1e300, "less than"),
    ("budget for nothing", BUDGET, "loosest: reordered, error_budget: 1.0", "numerics.error_budget", 1.0, "quantised"),
    ("memory with a unit", MEMORY, "activation_memory_gb: 8 GB", "limits.activation_memory_gb", "8 GB", A_PLAIN_NUMBER),
    ("memory zero", MEMORY, "activation_memory_gb: 0", "limits.activation_memory_gb", 0, "greater than 0"),
    ("tolerance one", "0.005", "1", "search.range_tolerance", 1, "less than 1"),
    ("tolerance negative", "0.005", "-0.1", "search.range_tolerance", -0.1, "equal to 0"),
    ("tolerance boolean", "0.005", "false", "search.range_tolerance", False, "a number"),
    ("tolerance text", "0.005", '"0.005"', "search.range_tolerance", "0.005", A_PLAIN_NUMBER),
]

OTHERS = [
    ("mapping for a text", "name: small", "name: {a: b}", "name", None, A_TEXT),
    ("number for a text", "name: small", "name: 3", "name", 3, A_TEXT),
    ("empty text", "name: small", 'name: ""', "name", "", A_TEXT),
    (
        "number for a mapping",
        "parallelism: {tp: 2, attn_dp: 1, ep: 1, moe_backend: tensor_parallel}",
        "parallelism: 2",
        "parallelism",
        2,
        "a mapping",
    ),
    (
        "unknown word",
        "moe_backend: tensor_parallel",
        "moe_backend: tp",
        "parallelism.moe_backend",
        "tp",
        "'all_to_all'",
    ),
    ("unknown dtype", "weights: fp32", "weights: fp4", "dtypes.weights", "fp4", "'int8'"),
    ("dtype the machine lacks", "weights: fp32", "weights: fp8", "dtypes.weights", "fp8", "fp8 rate"),
    ("unknown class", "loosest: reordered", "loosest: exakt", "numerics.loosest", "exakt", "'exact'"),
    ("unknown executor", "executor: transformers", "executor: tgi", "executor", "tgi", "transformers"),
    ("unknown model", "model: qwen3-0.6b", "model: qwen3-0.6", "model", "qwen3-0.6", "'qwen3-0.6b'"),
    ("unknown hardware", "hardware: cpu-gloo", "hardware: cpu", "hardware", "cpu", "'cpu-gloo'"),
    ("missing model file", "model: qwen3-0.6b", "model: m.yaml", "model", "m.yaml", "no such file"),
    ("another schema", "deployment/v1", "deployment/v9", "schema", "commplan/deployment/v9", "commplan/deployment/v1"),
    (
        "another kind of file",
        "commplan/deployment/v1",
        "commplan/model/v1",
        "schema",
        "commplan/model/v1",
        "deployment/v1",
    ),
    ("span of one number", SPAN, "tokens: 64", "modes.prefill.tokens", 64, "[min, max]"),
    ("span of a list of one", SPAN, "tokens: [64]", "modes.prefill.tokens", "[64]", "[min, max]"),
    ("span of three", SPAN, "tokens: [1, 2, 64]", "modes.prefill.tokens", "[1, 2, 64]", "[min, max]"),
    ("span reversed", SPAN, "tokens: [64, 1]", "modes.prefill.tokens", "[64, 1]", "min is above max"),
    ("span from zero", SPAN, "tokens: [0, 64]", "modes.prefill.tokens[0]", 0, "greater than 0"),
    ("span too large", SPAN, "tokens: [1, 99999999]", "modes.prefill.tokens", "[1, 99999999]", "4194304"),
    ("span of texts", SPAN, "tokens: [one, 64]", "modes.prefill.tokens[0]", "one", A_PLAIN_NUMBER),
    ("unknown mode", "  decode:", "  decod:", "modes.decod", None, "'decode'"),
    ("no sequence length", ", " + SEQUENCE, "", "modes.prefill.sequence_tokens", None, "missing"),
    ("no context length", ", context_tokens: 128", "", "modes.decode.context_tokens", None, "missing"),
    (
        "field of another mode",
        SEQUENCE,
        SEQUENCE + ", draft_tokens: 4",
        "modes.prefill.draft_tokens",
        4,
        "leave it out",
    ),
    ("no work at all", "{tokens: [1, 8], context_tokens: 128}", "null", "modes.decode", None, "a mapping"),
    ("unknown op", PIN, "pin: [{op: all_reduc, boundary: mlp_out}]", "numerics.pin[0].op", "all_reduc", "'all_reduce'"),
    ("unknown boundary", PIN, "pin: [{op: none, boundary: mlp}]", "numerics.pin[0].boundary", "mlp", "'mlp_in'"),
    ("pin without boundary", PIN, "pin: [{op: none}]", "numerics.pin[0].boundary", None, "boundary"),
    ("impl of no op", FORBID, "forbid: [{op: slice, impl: nccl}]", "numerics.forbid[0].impl", "nccl", "no such impl"),
    ("layers backwards", FORBID, "forbid: [{op: slice, layers: 9-2}]", "numerics.forbid[0].layers", "9-2", "first"),
    ("layers as a list", FORBID, "forbid: [{op: slice, layers: [1]}]", "numerics.forbid[0].layers", "[1]", "0-2,5"),
    ("layers as a boolean", FORBID, "forbid: [{op: slice, layers: true}]", "numerics.forbid[0].layers", True, "0-2,5"),
    ("negative layer", FORBID, "forbid: [{op: slice, layers: -1}]", "numerics.forbid[0].layers", -1, "0-2,5"),
    ("layer of no model", FORBID, "forbid: [{op: slice, layers: 28}]", "numerics.forbid[0].layers", 28, "0-27"),
    (
        "layers outside a layer",
        PIN,
        "pin: [{op: none, boundary: head_in, layers: 1}]",
        "numerics.pin[0].layers",
        1,
        "leave",
    ),
    (
        "mode of no deployment",
        FORBID,
        "forbid: [{op: slice, modes: [mixed]}]",
        "numerics.forbid[0].modes",
        "mixed",
        "decode",
    ),
    (
        "unknown mode in a rule",
        FORBID,
        "forbid: [{op: slice, modes: [prefil]}]",
        "numerics.forbid[0].modes",
        "prefil",
        "'prefill'",
    ),
    ("rules as a mapping", PIN, "pin: {op: none}", "numerics.pin", None, A_LIST),
]


@pytest.mark.parametrize(("what", "old", "new", "field", "value", "accepted"), NUMBERS + OTHERS)
def test_one_wrong_value(what: str, old: str, new: str, field: str, value: Any, accepted: str, tmp_path: Path) -> None:
    path = deployment(tmp_path, (old, new))
    error = refused("plan", path)
    assert error["file"] == str(path)
    assert error["field"] == field
    assert error["value"] == value
    assert accepted in error["message"]


@pytest.mark.parametrize("key", ["schema", "name", "model", "hardware", "executor", "parallelism", "modes"])
def test_a_key_that_must_be_there(key: str, tmp_path: Path) -> None:
    path = deployment(tmp_path)
    lines = path.read_text().splitlines()
    kept = [line for line in lines if not line.startswith(f"{key}:") and not (key == "modes" and line[0] == " ")]
    path.write_text("\n".join(kept) + "\n")
    error = refused("plan", path)
    assert (error["kind"], error["file"], error["field"]) == ("missing_key", str(path), key)


def test_a_deployment_without_a_mode_is_refused_with_the_modes_there_are(tmp_path: Path) -> None:
    path = deployment(tmp_path)
    text = path.read_text().replace("modes:\n", "modes: {}\n")
    path.write_text("\n".join(line for line in text.splitlines() if line[0] != " ") + "\n")
    error = refused("plan", path)
    assert error["field"] == "modes"
    assert "prefill" in error["message"]


def test_a_name_cannot_break_out_of_its_line(tmp_path: Path) -> None:
    """Line breaks and terminal escapes of a file stay escaped in what is printed."""
    path = deployment(tmp_path, ("search:", '"zzz\\n\\x1b[31m": 1\nsearch:'))
    error = refused("plan", path)
    assert error["field"] == "zzz\n\x1b[31m"


def test_values_are_repeated_in_part_only(tmp_path: Path) -> None:
    error = refused("plan", deployment(tmp_path, ("model: qwen3-0.6b", f"model: {'m' * 100_000}")))
    assert len(error["value"]) < 2000
    assert len(error["message"]) < 2000


def test_a_deployment_in_json_is_read_like_one_in_yaml(tmp_path: Path) -> None:
    import json

    import yaml

    path = deployment(tmp_path)
    (tmp_path / "small.json").write_text(json.dumps(yaml.safe_load(path.read_text())))
    assert answer("plan", tmp_path / "small.json")["hash"] == answer("plan", path)["hash"]
