"""`init deployment` writes a deployment that plans at once, split by what fits, of the weights of the checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from commplan.planner.descriptions.deployment import Deployment, Dtypes, ModeSpec
from commplan.planner.descriptions.loader import load_setup, preset_names
from commplan.planner.fit.sizing import sizes
from commplan.planner.fit.verdict import fit

from .commandline import answer, refused, run

HF_CONFIGS = Path(__file__).parents[1] / "descriptions" / "hf_configs"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def checkpoint(name: str = "qwen3-8b", folder: str = "ck", **changes: Any) -> str:
    Path(folder).mkdir(parents=True)
    config = json.loads((HF_CONFIGS / f"{name}.json").read_text())
    (Path(folder) / "config.json").write_text(json.dumps(config | changes))
    return folder


def made(*arguments: str) -> dict[str, Any]:
    """The file that a command line makes, as it stands there."""
    path = answer("init", "deployment", *arguments, "--force")["deployment_file"]
    found: dict[str, Any] = yaml.safe_load(Path(path).read_text())
    return found


def test_a_model_and_a_machine_make_a_deployment_that_plans_at_once() -> None:
    checkpoint()
    result = run("init", "deployment", "ck", "--hardware", "h100-8")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("Written to ck-h100-8-tp4.yaml\n")
    assert result.out.endswith("Next: commplan plan ck-h100-8-tp4.yaml -o ck-h100-8-tp4.strategy.yaml\n")
    plan = answer("plan", "ck-h100-8-tp4.yaml", "-o", "plan.yaml", "--require-fit")
    assert set(plan["modes"]) == {"prefill", "decode"}


@pytest.mark.slow
@pytest.mark.parametrize("hardware", preset_names("hardware"))
@pytest.mark.parametrize("model", ["qwen3-0.6b", "qwen3-235b-a22b", "deepseek-r1", "qwen3.5-397b-a17b"])
def test_what_is_written_plans_and_fits_and_what_cannot_be_says_why(model: str, hardware: str) -> None:
    checkpoint(model)
    result = run("init", "deployment", "ck", "--hardware", hardware, "-o", "d.yaml")
    if result.code == 0:
        plan = answer("plan", "d.yaml", "--require-fit")
        assert set(plan["modes"]) == {"prefill", "decode"}
    else:
        assert result.err.startswith("error: --weights: ") and not Path("d.yaml").exists(), result


def test_every_key_of_a_deployment_stands_in_the_file_with_what_it_means() -> None:
    found = made("qwen3-8b", "--hardware", "h100-8")
    optional = {"description", "loaded_layers"}
    assert set(found) == {f.alias or name for name, f in Deployment.model_fields.items()} - optional
    for name in ("parallelism", "numerics", "limits", "search"):
        assert set(found[name]) == set(Deployment.model_fields[name].annotation.model_fields)
    assert set(found["dtypes"]) == set(Dtypes.model_fields) - {"weight_block"}
    for mode in found["modes"].values():
        assert set(mode) < set(ModeSpec.model_fields)
    text = Path("qwen3-8b-h100-8-tp4.yaml").read_text()
    silent = [line for line in text.splitlines()[3:] if " #" not in line and not line.endswith(":")]
    assert silent == []


@pytest.mark.parametrize(
    ("config", "expected", "why"),
    [
        ({}, "bf16", "not quantised"),
        ({"torch_dtype": "float16"}, "fp16", "not quantised"),
        ({"torch_dtype": "float32"}, "bf16", "not quantised"),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, "fp8", "of the checkpoint"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}, "w4a16", "of the checkpoint"),
    ],
)
def test_the_weights_are_those_of_the_checkpoint(config: dict[str, Any], expected: str, why: str) -> None:
    checkpoint(**config)
    assert made("ck", "--hardware", "h100-8", "-o", "d.yaml")["dtypes"]["weights"] == expected
    assert (
        why
        in answer("init", "deployment", "ck", "--hardware", "h100-8", "-o", "d.yaml", "--force")["reasons"]["weights"]
    )


def test_another_type_of_weights_may_be_asked_for() -> None:
    found = made("deepseek-r1", "--hardware", "ascend-a3-16", "--weights", "int8")
    assert found["dtypes"]["weights"] == "int8"


def test_tp_is_the_smallest_whose_devices_hold_weights_and_cache() -> None:
    for model, hardware in (("qwen3-8b", "h100-8"), ("qwen3-32b", "b200-8"), ("deepseek-r1", "b300-8")):
        found = made(model, "--hardware", hardware, "-o", "d.yaml")
        tp = found["parallelism"]["tp"]
        assert fit(load_setup("d.yaml")).fits
        if tp > 2:
            assert not fit(load_setup("d.yaml", (f"parallelism.tp={tp // 2}", "parallelism.ep=1"))).fits, (model, tp)


def test_work_that_no_size_holds_ends_where_the_cache_does() -> None:
    result = run("init", "deployment", "deepseek-r1", "--hardware", "h20-8")
    assert "decode ends at 16 tokens: what the KV cache has room for" in result.out
    found = yaml.safe_load(Path("deepseek-r1-h20-8-tp8.yaml").read_text())
    assert (found["parallelism"]["tp"], found["modes"]["decode"]["tokens"]) == (8, [1, 16])
    assert answer("plan", "deepseek-r1-h20-8-tp8.yaml", "--require-fit")


def test_experts_are_split_where_blocks_of_scales_need_it() -> None:
    quantized = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    checkpoint("qwen3-235b-a22b", quantization_config=quantized)
    found = made("ck", "--hardware", "h100-8", "--tp", "8")
    assert found["parallelism"]["ep"] > 1


def test_the_server_runs_it_where_it_can_and_nobody_where_not() -> None:
    assert made("qwen3-8b", "--hardware", "h100-8")["executor"] == "sglang"
    assert made("qwen3-8b", "--hardware", "mi300x-8")["executor"] == "plan_only"
    assert made("qwen3.5-397b-a17b", "--hardware", "b300-8")["executor"] == "plan_only"
    assert made("qwen3-8b", "--hardware", "h100-8", "--executor", "transformers")["executor"] == "transformers"


def test_the_work_may_be_given() -> None:
    given = ["--prefill-tokens", "8192", "--prompt-tokens", "1024", "--requests", "32", "--context-tokens", "9000"]
    assert made("qwen3-8b", "--hardware", "h100-8", *given)["modes"] == {
        "prefill": {"tokens": [1, 8192], "sequence_tokens": 1024, "prefix_tokens": 0},
        "decode": {"tokens": [1, 32], "context_tokens": 9000},
    }


def test_paths_are_written_as_they_are_seen_from_the_file(folder: Path) -> None:
    checkpoint(folder="models/ck")
    shutil.copy(Path(__file__).parents[3] / "configs" / "hardware" / "h100-8.yaml", "mine.yaml")
    Path("plans").mkdir()
    found = made("models/ck", "--hardware", "mine.yaml", "-o", "plans/d.yaml")
    assert (found["model"], found["hardware"]) == ("../models/ck", "../mine.yaml")
    assert load_setup("plans/d.yaml").model.name == "ck"
    found = made(str(folder / "models/ck/config.json"), "--hardware", "h100-8", "-o", "plans/d.yaml")
    assert found["model"] == str(folder / "models/ck/config.json")


def test_a_model_of_the_cache_keeps_its_name_of_the_hub(folder: Path) -> None:
    snapshot = folder / "hub" / "models--Qwen--Qwen3-8B" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_bytes((HF_CONFIGS / "qwen3-8b.json").read_bytes())
    assert made("Qwen/Qwen3-8B", "--hardware", "h100-8")["model"] == "Qwen/Qwen3-8B"
    assert Path("qwen3-8b-h100-8-tp4.yaml").is_file()


@pytest.mark.parametrize(
    ("arguments", "field", "code"),
    [
        (["qwen3-8b", "--hardware", "h100-8", "--tp", "3"], "--tp", 2),
        (["qwen3-8b", "--hardware", "h100-8", "--tp", "16"], "--tp", 2),
        (["qwen3-8b", "--hardware", "h101-8"], "--hardware", 2),
        (["qwen3-8b", "--hardware", "no.yaml"], "--hardware", 2),
        (["qwen3-8b"], "--hardware", 2),
        (["qwen9-8b", "--hardware", "h100-8"], "MODEL", 2),
        (["Qwen/Qwen9", "--hardware", "h100-8"], "MODEL", 2),
        (["qwen3-8b", "--hardware", "h100-8", "--executor", "sglan"], "--executor", 2),
        (["qwen3.5-397b-a17b", "--hardware", "h100-8", "--executor", "sglang"], "--executor", 2),
        (["qwen3-8b", "--hardware", "h100-8", "--name", "deepseek-r1-h20-tp8"], "--name", 2),
        (["deepseek-r1", "--hardware", "ascend-a2-8-280t"], "--weights", 2),
        (["deepseek-r1", "--hardware", "l40s-8"], "--weights", 3),
    ],
)
def test_what_cannot_be_is_told_by_its_option_and_nothing_is_written(
    arguments: list[str], field: str, code: int, folder: Path
) -> None:
    error = refused("init", "deployment", *arguments, code=code)
    assert error["field"] == field
    assert not list(folder.iterdir())


@pytest.mark.parametrize("given", [(), ("--weights", "fp8")])
def test_an_option_that_was_not_given_is_named_as_such(given: tuple[str, ...]) -> None:
    error = refused("init", "deployment", "deepseek-r1", "--hardware", "l40s-8", *given, code=3)
    assert error["field"] == "--weights"
    assert ("(no --weights was given)" in error["message"]) == (not given)


def test_a_deployment_on_standard_output_is_no_path_in_what_is_said() -> None:
    result = run("init", "deployment", "qwen3-8b", "--hardware", "h100-8", "-o", "-")
    assert (result.code, result.out.startswith("# Qwen3-8B on h100-8.")) == (0, True)
    assert "Written to standard output" in result.err and "Next: " not in result.err


def test_a_deployment_that_is_there_lends_no_line_to_a_fault_of_the_new_one() -> None:
    Path("deployment.yaml").write_text("parallelism:\n  tp: 3\n")
    error = refused("init", "deployment", "qwen3-8b", "--hardware", "h100-8", "--tp", "3")
    assert (error["file"], error["line"]) == (None, None)


def test_a_file_that_is_there_is_replaced_only_by_force() -> None:
    Path("d.yaml").write_text("mine")
    error = refused("init", "deployment", "qwen3-8b", "--hardware", "h100-8", "-o", "d.yaml")
    assert (error["kind"], error["file"], error["line"]) == ("exists", "d.yaml", None)
    assert Path("d.yaml").read_text() == "mine"
    checkpoint()
    error = refused("init", "deployment", "ck", "--hardware", "h100-8", "-o", "ck/config.json", "--force")
    assert error["kind"] == "overwrites_input"


@pytest.mark.parametrize(
    ("devices", "node", "tried"),
    [
        (1, 1, [1]),
        (2, 2, [2]),
        (8, 8, [2, 4, 8]),
        (16, 8, [2, 4, 8, 16]),
        (6, 6, [2, 4, 6]),
        (72, 72, [2, 4, 8, 16, 32, 64, 72]),
    ],
)
def test_sizes_are_powers_of_two_a_node_and_everything(devices: int, node: int, tried: list[int]) -> None:
    assert sizes(devices, node) == tried


def test_a_data_sheet_and_a_config_lead_to_a_plan_in_three_commands(folder: Path) -> None:
    """The walk of docs/own-machine.md."""
    checkpoint("qwen3-32b", "checkpoint")
    sheet = "--vendor nvidia --memory-gb 288 --memory-gb-per-s 8TB/s --bf16-tflops 2500 --link switch "
    sheet += "--link-gb-per-s 900 --devices-per-node 8"
    first = run("init", "hardware", "--name", "b9-8", *sheet.split())
    second = run("init", "deployment", "checkpoint", "--hardware", first.out.split()[2].rstrip("."))
    third = run("plan", second.out.split()[2], "-o", "strategy.yaml")
    assert (first.code, second.code, third.code) == (0, 0, 0)
    assert run("validate", "strategy.yaml").out == "strategy.yaml: legal\n"
