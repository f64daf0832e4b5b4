"""`validate` proves strategy files legal for model, split, modes and executor, and lists what is wrong with others."""

from __future__ import annotations

from pathlib import Path

import pytest

from commplan.planner.descriptions.loader import preset_names

from .commandline import answer, refused, run

R1 = "deepseek-r1-h20-tp8"
LATE_GATHER = Path(__file__).parents[1] / "strategy" / "file" / "plans" / "late_gather.yaml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_bytes(LATE_GATHER.read_bytes())
    return path


def errors(path: Path) -> list[dict[str, str]]:
    result = run("validate", path, "--json")
    found: list[dict[str, str]] = result.json["files"][0]["errors"]
    assert result.code == (2 if found else 0)
    assert result.json["files"][0]["legal"] is (not found)
    return found


@pytest.mark.parametrize(
    ("was", "edited", "field"),
    [
        ("tp: 8,", "tp: 4,", "parallelism.tp"),
        ("hidden_size: 7168", "hidden_size: 4096", "model.hidden_size"),
        ("activations: bf16", "activations: fp16", "deployment.activations"),
        ("role: target", "role: draft", "model.role"),
    ],
)
def test_a_head_that_says_otherwise_than_its_fingerprints_is_illegal(
    was: str, edited: str, field: str, tmp_path: Path
) -> None:
    path = tmp_path / "plan.yaml"
    answer("plan", R1, "-o", path)
    assert was in path.read_text()
    path.write_text(path.read_text().replace(was, edited, 1))
    assert [error["field"] for error in errors(path)] == [field]
    assert refused("explain", R1, "--strategy", path)["field"] == field


@pytest.mark.slow
@pytest.mark.parametrize("deployment", preset_names("deployments"))
def test_the_plan_of_every_preset_is_legal(deployment: str, tmp_path: Path) -> None:
    answer("plan", deployment, "-o", tmp_path / "plan.yaml")
    assert errors(tmp_path / "plan.yaml") == []
    result = run("validate", tmp_path / "plan.yaml")
    assert (result.code, result.out) == (0, f"{tmp_path / 'plan.yaml'}: legal\n")


def test_one_illegal_file_among_legal_ones_fails_the_command_and_is_named(file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(file.read_text().replace("head_in: all_gather", "head_in: none", 1))
    result = run("validate", file, bad, file)
    assert result.code == 2
    assert result.out.splitlines()[:2] == [f"{file}: legal", f"{bad}: illegal"]
    assert "head_in" in result.out


@pytest.mark.parametrize(
    ("old", "new", "field", "reason"),
    [
        (
            "executor: transformers",
            "executor: sglang",
            "modes.prefill[1].head_in",
            "executor sglang: SGLang picks the rows that need logits from complete rows",
        ),
        ("executor: transformers", "executor: tgi", "executor", "accepted: plan_only, sglang, transformers, vllm"),
        ("DeepseekV3ForCausalLM", "MambaForCausalLM", "executor", "no adapter for MambaForCausalLM"),
        ("backend: nccl", "backend: mpi", "hardware.backend", "no such impl"),
        (
            "attn_out: all_reduce,",
            "attn_out: {all_reduce: {impl: flashinfer_mixed}},",
            "modes.prefill[0].layers.0.attn_out",
            "flashinfer_mixed",
        ),
        ("latent_width: 2112", "latent_width: 0", "modes.prefill[1].layers.0.attn_in", "q_lora_rank"),
        ("numerics: reordered", "numerics: exact", "modes.prefill[1].embed_out", "looser than the exact"),
        ("tp: 8, attn_dp: 1", "tp: 8, attn_dp: 2", "modes.prefill[0].layers.0.mlp_in", "all_gather"),
        ("tp: 8, attn_dp: 1", "tp: 8, attn_dp: 3", "parallelism.attn_dp", "does not divide tp 8"),
    ],
)
def test_what_a_file_is_made_for_is_part_of_its_legality(
    old: str, new: str, field: str, reason: str, file: Path
) -> None:
    file.write_text(file.read_text().replace(old, new, 1))
    found = errors(file)
    assert any(field == e["field"] and reason in e["reason"] for e in found), found


def test_an_unknown_executor_does_not_hide_an_illegal_op(file: Path) -> None:
    text = file.read_text().replace("executor: transformers", "executor: tgi")
    file.write_text(text.replace("mlp_out: all_reduce", "mlp_out: none", 1))
    assert {"executor", "modes.prefill[0].layers.0.mlp_out"} <= {e["field"] for e in errors(file)}


def test_every_range_is_looked_at(file: Path) -> None:
    file.write_text(file.read_text().replace("embed_out: all_reduce\n", "embed_out: none\n"))
    assert {e["field"] for e in errors(file)} == {"modes.prefill[0].embed_out", "modes.decode[0].embed_out"}


def test_a_whole_deployment_is_no_strategy_file() -> None:
    from importlib.resources import files

    path = Path(str(files("commplan.configs"))) / "deployments" / f"{R1}.yaml"
    assert "not a commplan strategy file" in errors(path)[0]["reason"]


def test_layers_with_the_same_problem_share_a_line(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    assert run("plan", "qwen3-32b-a2-tp2", "-o", path).code == 0
    path.write_text(path.read_text().replace("numerics: quantized", "numerics: reordered"))
    result = run("validate", path)
    lines = result.out.splitlines()
    assert result.code == 2
    assert any("layers.0-63.attn_out" in line or "layers.0-62.attn_out" in line for line in lines), lines
    assert len(lines) < 10
    assert len(run("validate", path, "--json").json["files"][0]["errors"]) > 64


GOLDEN = Path(__file__).parents[2] / "golden" / "qwen3-32b-l40s-tp4.yaml"


def test_explain_names_an_op_that_does_not_fit_as_validate_does(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(GOLDEN.read_text().replace("impl: composed_norm", "impl: flashinfer_fp8", 1))
    (told,) = errors(path)
    first = next(n for n, line in enumerate(path.read_text().splitlines(), 1) if "flashinfer_fp8" in line)
    error = refused("explain", "--strategy", path, "--mode", "prefill", "--tokens", 300)
    assert (error["line"], error["field"]) == (told["line"], told["field"]) == (first, told["field"])
    assert told["field"] == "modes.prefill[1].layers.0.attn_out"
    assert error["message"] == told["reason"]


@pytest.mark.parametrize("command", ["plan", "what-if", "calibrate"])
def test_a_strategy_file_in_place_of_a_deployment_is_called_one(command: str, tmp_path: Path) -> None:
    more = ("-o", tmp_path / "out.yaml") if command == "calibrate" else ()
    error = refused(command, GOLDEN, *more)
    assert (error["file"], error["line"], error["field"]) == (str(GOLDEN), 1, "schema")
    assert "this is a strategy file" in error["message"] and "explain --strategy FILE" in error["message"]
