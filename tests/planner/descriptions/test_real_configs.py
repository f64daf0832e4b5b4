"""The config.json of every supported model, as published on Hugging Face, gives the preset that ships with commplan.

`hf_configs/` holds the fields that matter of each; the names of the files are those of the presets.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commplan.planner.descriptions.loader import load_model, preset_names
from commplan.planner.descriptions.model import Model
from commplan.planner.strategy.file.fingerprint import config_fingerprint, fields_fingerprint

from ..cli.commandline import answer, run

CONFIGS = Path(__file__).parent / "hf_configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.json"))
NOT_IN_A_CONFIG = {"name", "source"}


def fields(model: Model) -> dict[str, object]:
    return model.model_dump(exclude=NOT_IN_A_CONFIG)


def test_every_model_preset_has_its_config_here() -> None:
    assert tuple(NAMES) == preset_names("models")


@pytest.mark.parametrize("name", NAMES)
def test_a_config_reads_as_the_preset(name: str) -> None:
    assert fields(load_model(str(CONFIGS / f"{name}.json"))) == fields(load_model(name))


@pytest.mark.parametrize("name", NAMES)
def test_an_imported_model_file_reads_as_the_preset(name: str, tmp_path: Path) -> None:
    out = tmp_path / "model.yaml"
    report = answer("import-model", CONFIGS / f"{name}.json", "-o", out)
    assert report["model_file"] == str(out)
    assert fields(load_model(str(out))) == fields(load_model(name))


@pytest.mark.parametrize("name", NAMES)
def test_config_and_preset_have_one_fingerprint(name: str) -> None:
    """By which a runtime that has the config alone knows the plan of the preset."""
    config = json.loads((CONFIGS / f"{name}.json").read_text())
    assert config_fingerprint(config) == fields_fingerprint(load_model(name).model_dump(mode="json"))


def test_a_config_can_stand_in_a_deployment(tmp_path: Path) -> None:
    """`model:` takes the path of a config.json; the plan is the preset's."""
    config = CONFIGS / "deepseek-r1.json"
    preset = answer("plan", "deepseek-r1-h20-tp8")
    assert answer("plan", "deepseek-r1-h20-tp8", f"--set=model={config}")["modes"] == preset["modes"]


@pytest.mark.parametrize("name", NAMES)
def test_every_model_can_be_planned(name: str) -> None:
    machine = ["hardware=h200-8", "dtypes.weights=bf16", "dtypes.activations=bf16", "executor=plan_only"]
    options = [f"--set={text}" for text in [*machine, f"model={CONFIGS / f'{name}.json'}", "parallelism.tp=2"]]
    assert set(answer("plan", "qwen3-0.6b-cpu-tp2", *options)["modes"]) == {"prefill", "decode"}


def test_without_o_the_model_file_is_printed_as_yaml(tmp_path: Path) -> None:
    out = run("import-model", CONFIGS / "qwen3-8b.json").out
    (tmp_path / "model.yaml").write_text(out)
    assert fields(load_model(str(tmp_path / "model.yaml"))) == fields(load_model("qwen3-8b"))


def test_the_name_comes_from_the_folder_of_a_config_json_or_from_name(tmp_path: Path) -> None:
    folder = tmp_path / "Qwen3-8B"
    folder.mkdir()
    config = folder / "config.json"
    config.write_bytes((CONFIGS / "qwen3-8b.json").read_bytes())
    assert answer("import-model", config)["model"]["name"] == "Qwen3-8B"
    assert answer("import-model", config, "--name", "mine: #1")["model"]["name"] == "mine: #1"
    assert answer("import-model", CONFIGS / "qwen3-8b.json")["model"]["name"] == "qwen3-8b"


def test_a_model_file_can_be_imported_again(tmp_path: Path) -> None:
    once, twice = tmp_path / "once.yaml", tmp_path / "twice.yaml"
    answer("import-model", CONFIGS / "qwen3.5-397b-a17b.json", "-o", once)
    answer("import-model", once, "-o", twice)
    assert once.read_bytes() == twice.read_bytes()


KNOWN = {
    "deepseek-r1": {"latent_width": 2112, "dense": 3, "moe": 58},
    "deepseek-v3.2": {"latent_width": 2304, "dense": 3, "moe": 58},
    "deepseek-v2": {"latent_width": 2112, "dense": 1, "moe": 59},
    "deepseek-v2-lite": {"latent_width": 0, "dense": 1, "moe": 26},
    "qwen3-235b-a22b": {"latent_width": 0, "dense": 0, "moe": 94},
    "qwen2.5-72b": {"latent_width": 0, "dense": 80, "moe": 0},
}


@pytest.mark.parametrize("name", KNOWN)
def test_what_follows_from_a_config(name: str) -> None:
    """Widths and layer kinds, worked out by hand from the published fields."""
    model = load_model(str(CONFIGS / f"{name}.json"))
    kinds = [model.mlp_kind(layer) for layer in range(model.num_hidden_layers)]
    assert model.latent_width == KNOWN[name]["latent_width"]
    assert (kinds.count("dense"), kinds.count("moe")) == (KNOWN[name]["dense"], KNOWN[name]["moe"])


def test_every_fourth_layer_of_qwen35_has_full_attention() -> None:
    model = load_model(str(CONFIGS / "qwen3.5-397b-a17b.json"))
    full = [i for i in range(model.num_hidden_layers) if model.attention_kind(i) == "full_attention"]
    assert full == list(range(3, 60, 4))
