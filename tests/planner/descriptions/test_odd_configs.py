"""A config.json with a field null or of another type is refused by that field; one left out has a default.

What the defaults are, tests/runtime/transformers/test_config_defaults.py compares with transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.descriptions.loader import load_model
from commplan.planner.strategy.architectures import known

from ..cli.commandline import answer, refused

CONFIGS = Path(__file__).parent / "hf_configs"
DENSE, MOE, MLA, HYBRID = "qwen3-32b", "qwen3-235b-a22b", "deepseek-v3.2", "qwen3.5-397b-a17b"

REQUIRED = {
    DENSE: ["hidden_size", "num_hidden_layers", "vocab_size", "num_attention_heads", "intermediate_size"],
    MOE: ["hidden_size", "num_experts", "num_experts_per_tok", "moe_intermediate_size"],
    MLA: [
        "kv_lora_rank",
        "qk_nope_head_dim",
        "qk_rope_head_dim",
        "v_head_dim",
        "n_routed_experts",
        "intermediate_size",
    ],
    HYBRID: ["text_config.hidden_size", "text_config.num_experts", "text_config.linear_num_key_heads"],
}
PLACES = [(name, field) for name, fields in REQUIRED.items() for field in fields]


def spoiled(folder: Path, name: str, field: str, value: Any) -> Path:
    """A config with one field set, or left out where the value is ..."""
    config = json.loads((CONFIGS / f"{name}.json").read_text())
    *sections, key = field.split(".")
    inner = config
    for section in sections:
        inner = inner[section]
    inner[key] = value
    if value is ...:
        del inner[key]
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(("name", "field"), PLACES)
def test_a_size_that_is_left_out_is_that_of_the_model_type_and_the_file_says_so(
    name: str, field: str, tmp_path: Path
) -> None:
    path = spoiled(tmp_path, name, field, ...)
    model = load_model(str(path))
    taken = known()[model.architecture].defaults[field.removeprefix("text_config.")]
    assert f"{field} {taken}" in model.assumed[-1]


def test_a_size_without_a_default_is_missing(tmp_path: Path) -> None:
    """transformers has none for the experts per token of DeepSeek-V2."""
    error = refused("import-model", spoiled(tmp_path, "deepseek-v2", "num_experts_per_tok", ...))
    assert (error["kind"], error["field"]) == ("missing_key", "num_experts_per_tok")


@pytest.mark.parametrize(("name", "field"), PLACES)
def test_a_size_that_is_null(name: str, field: str, tmp_path: Path) -> None:
    path = spoiled(tmp_path, name, field, None)
    error = refused("import-model", path)
    assert (error["kind"], error["file"]) == ("missing_key", str(path))
    assert error["field"] in (field, field.removeprefix("text_config."))
    assert "missing" in error["message"]


@pytest.mark.parametrize(("name", "field"), PLACES)
@pytest.mark.parametrize("value", ["32", -1, 0, 1.5, True, [1], {"a": 1}, 10**30])
def test_a_number_of_another_type_or_size(name: str, field: str, value: Any, tmp_path: Path) -> None:
    path = spoiled(tmp_path, name, field, value)
    error = refused("import-model", path)
    assert (error["file"], error["field"]) == (str(path), field)
    assert "a whole number" in error["message"]
    assert error["value"] is not None


OPTIONAL = [
    (DENSE, "num_key_value_heads", "four", "a whole number"),
    (DENSE, "head_dim", -128, "a whole number"),
    (DENSE, "head_dim", 0, "a whole number"),
    (DENSE, "num_key_value_heads", 0, "a whole number"),
    (MOE, "decoder_sparse_step", 0, "a whole number"),
    (MLA, "moe_layer_freq", 0, "a whole number"),
    (DENSE, "tie_word_embeddings", "yes", "true or false"),
    (DENSE, "tie_word_embeddings", 1, "true or false"),
    (MOE, "mlp_only_layers", 3, "a list of whole numbers"),
    (MOE, "mlp_only_layers", ["3"], "a list of whole numbers"),
    (MOE, "decoder_sparse_step", "1", "a whole number"),
    (MOE, "shared_expert_intermediate_size", [], "a whole number"),
    (MLA, "first_k_dense_replace", -3, "a whole number"),
    (MLA, "moe_layer_freq", [1, 1], "a whole number"),
    (MLA, "n_shared_experts", "one", "a whole number"),
    (MLA, "q_lora_rank", 0, "a whole number"),
    (MLA, "index_head_dim", 1.0, "a whole number"),
    (HYBRID, "text_config", [], "a mapping"),
    (HYBRID, "text_config.layer_types", "full_attention", "a list of texts"),
    (HYBRID, "text_config.layer_types", ["full_attention"], "each of 60 layers"),
    (HYBRID, "text_config.layer_types", ["full_attention", "mamba"] * 30, "linear_attention"),
    (HYBRID, "text_config.linear_num_key_heads", "16", "a whole number"),
]


@pytest.mark.parametrize(("name", "field", "value", "accepted"), OPTIONAL)
def test_an_optional_field_of_another_type(name: str, field: str, value: Any, accepted: str, tmp_path: Path) -> None:
    path = spoiled(tmp_path, name, field, value)
    error = refused("import-model", path)
    assert (error["file"], error["field"]) == (str(path), field)
    assert accepted in error["message"]


@pytest.mark.parametrize(
    ("name", "field", "as_if"),
    [
        (DENSE, "head_dim", {"head_dim": 128}),  # of the class of Qwen3, not 5120 / 64
        ("qwen2.5-7b", "head_dim", {"head_dim": 128}),  # 3584 / 28: the class of Qwen2 has none
        (DENSE, "num_key_value_heads", {"num_key_value_heads": 32}),
        (DENSE, "tie_word_embeddings", {"tie_word_embeddings": False}),
        (MOE, "mlp_only_layers", {"dense_layers": ()}),
        (MOE, "decoder_sparse_step", {"dense_layers": ()}),
        (MLA, "first_k_dense_replace", {"dense_layers": (0, 1, 2)}),
        (MLA, "n_shared_experts", {"shared_expert_intermediate_size": 2048}),
        (MLA, "moe_layer_freq", {"dense_layers": (0, 1, 2)}),
    ],
)
@pytest.mark.parametrize("value", [..., None])
def test_an_optional_field_left_out_or_null(
    name: str, field: str, as_if: dict[str, Any], value: Any, tmp_path: Path
) -> None:
    model = load_model(str(spoiled(tmp_path, name, field, value)))
    assert {key: getattr(model, key) for key in as_if} == as_if


def test_without_q_lora_rank_there_are_no_latents_to_gather(tmp_path: Path) -> None:
    """A null says that there is none; left out it is that of the class."""
    assert load_model(str(spoiled(tmp_path, "deepseek-r1", "q_lora_rank", None))).latent_width == 0
    assert load_model(str(spoiled(tmp_path, "deepseek-r1", "q_lora_rank", ...))).latent_width == 2112


def test_layer_types_may_be_given_by_an_interval(tmp_path: Path) -> None:
    path = spoiled(tmp_path, HYBRID, "text_config.layer_types", ...)
    assert load_model(str(path)).linear_attention_layers == load_model(HYBRID).linear_attention_layers
    config = json.loads(path.read_text())
    config["text_config"]["full_attention_interval"] = 0
    path.write_text(json.dumps(config))
    assert refused("import-model", path)["field"] == "text_config.full_attention_interval"


@pytest.mark.parametrize("step", [2, 3])
def test_dense_layers_between_experts(step: int, tmp_path: Path) -> None:
    """Experts: layers n-1, 2n-1, ... by `decoder_sparse_step` n (Qwen); 0, n, ... by `moe_layer_freq` n (DeepSeek)."""
    qwen = load_model(str(spoiled(tmp_path, MOE, "decoder_sparse_step", step)))
    experts = [i for i in range(94) if qwen.mlp_kind(i) == "moe"]
    assert experts == list(range(step - 1, 94, step))
    deepseek = load_model(str(spoiled(tmp_path, MLA, "moe_layer_freq", step)))
    experts = [i for i in range(61) if deepseek.mlp_kind(i) == "moe"]
    assert experts == [i for i in range(0, 61, step) if i >= 3]


ARCHITECTURES = [
    (["MambaForCausalLM"], "MambaForCausalLM", "not supported"),
    (["Qwen3ForCasualLM"], "Qwen3ForCasualLM", "Qwen3ForCausalLM,"),
    ([], "[]", "one architecture"),
    (["Qwen3ForCausalLM", "Qwen3ForCausalLM"], "['Qwen3ForCausalLM', 'Qwen3ForCausalLM']", "one architecture"),
    ("Qwen3ForCausalLM", "Qwen3ForCausalLM", "one architecture"),
    ([3], "[3]", "one architecture"),
    (None, None, "one architecture"),
    (..., None, "one architecture"),
]


@pytest.mark.parametrize(("value", "shown", "message"), ARCHITECTURES)
def test_an_architecture_without_an_adapter(value: Any, shown: Any, message: str, tmp_path: Path) -> None:
    path = spoiled(tmp_path, DENSE, "architectures", value)
    error = refused("import-model", path)
    assert (error["file"], error["field"], error["value"]) == (str(path), "architectures", shown)
    assert message in error["message"]


def test_more_layers_than_any_model_has_are_refused_at_once(tmp_path: Path) -> None:
    error = refused("import-model", spoiled(tmp_path, MOE, "num_hidden_layers", 2_000_000_000))
    assert (error["field"], "10000" in error["message"]) == ("num_hidden_layers", True)


def test_what_a_config_holds_besides_does_not_matter(tmp_path: Path) -> None:
    config = json.loads((CONFIGS / f"{HYBRID}.json").read_text())
    config |= {"vision_config": {"hidden_size": "odd"}, "rope_scaling": None}
    config["text_config"] |= {"linear_bias": False, "sliding_window": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert answer("import-model", tmp_path / "config.json")["model"]["num_hidden_layers"] == 60


def test_an_error_of_import_leaves_the_old_model_file(tmp_path: Path) -> None:
    out = tmp_path / "model.yaml"
    out.write_text("old\n")
    refused("import-model", spoiled(tmp_path, DENSE, "hidden_size", None), "-o", out)
    refused("import-model", tmp_path, "-o", out)
    assert out.read_text() == "old\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.yaml"]


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    error = refused("import-model", tmp_path / "config.json")
    assert (error["file"], error["message"]) == (str(tmp_path / "config.json"), "no such file")
