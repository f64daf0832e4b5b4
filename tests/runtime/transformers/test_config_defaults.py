"""What a config.json leaves out is what the installed transformers takes, for every architecture that it has.

And what transformers makes of a published file (fields renamed, lists of layers spelled out) reads as the file does.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig

from commplan.planner.descriptions.huggingface import model_fields
from commplan.planner.strategy.architectures import Architecture, known
from commplan.planner.strategy.errors import InputError

CONFIGS = Path(__file__).parents[2] / "planner" / "descriptions" / "hf_configs"
WITH_CLASS = sorted(name for name, architecture in known().items() if architecture.model_type is not None)
FILES = {path.stem: json.loads(path.read_text()) for path in sorted(CONFIGS.glob("*.json"))}
PUBLISHED = [name for name, config in FILES.items() if known()[config["architectures"][0]].model_type is not None]
NOT_STRUCTURE = ("name", "assumed", "quantization", "num_nextn_predict_layers")

# transformers' DeepSeek classes do not know `moe_layer_freq`, and its DeepSeek-V2 has no default of this.
WITHOUT_DEFAULT = {("DeepseekV2ForCausalLM", "num_experts_per_tok")}


def structure(config: dict[str, Any]) -> dict[str, Any]:
    fields = model_fields(config, "config.json")
    return {key: value for key, value in fields.items() if key not in NOT_STRUCTURE and value}


def by_transformers(architecture: Architecture, config: dict[str, Any]) -> dict[str, Any]:
    """The config as the class of its model_type loads it and spells it out."""
    made = AutoConfig.for_model(architecture.model_type)
    of_text = "text_config" not in config and type(made.get_text_config()) is not type(made) and len(config) > 1
    cls = type(made.get_text_config()) if of_text else type(made)
    given = copy.deepcopy(config)
    given.pop("architectures"), given.pop("model_type", None)
    return {**cls(**given).to_dict(), "architectures": [architecture.name]}


def test_every_architecture_but_kimi_k3_is_compared() -> None:
    assert set(known()) - set(WITH_CLASS) == {"KimiK3ForConditionalGeneration"}


@pytest.mark.parametrize("name", WITH_CLASS)
def test_every_default_is_that_of_the_class(name: str) -> None:
    architecture = known()[name]
    made = AutoConfig.for_model(architecture.model_type)
    for field, value in architecture.defaults.items():
        if field == "sliding_window" and name.startswith(("Qwen2", "Qwen3")):
            continue  # the class takes it away again where windows are not used
        holder = made if field == "tie_word_embeddings" else made.get_text_config()
        assert getattr(holder, field) == value, field


@pytest.mark.parametrize("name", WITH_CLASS)
def test_an_empty_config_is_the_default_one_of_the_class(name: str) -> None:
    architecture = known()[name]
    lacking = {field: 2 for of, field in WITHOUT_DEFAULT if of == name}
    config = {"architectures": [name], **lacking}
    assert structure(config) == structure({**by_transformers(architecture, {"architectures": [name]}), **lacking})


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_reads_as_transformers_loads_it(name: str) -> None:
    config = FILES[name]
    assert structure(config) == structure(by_transformers(known()[config["architectures"][0]], config))


# Words of the checkpoint that transformers overrides by its own or does not know: there the file is read.
OF_THE_FILE = {"moe_layer_freq", "hybrid_layer_pattern", "swa_num_key_value_heads", "architectures", "model_type"}


def left_out() -> list[tuple[str, str]]:
    places = []
    for name in PUBLISHED:
        inner = FILES[name].get("text_config", FILES[name])
        places += [
            (name, key) for key, value in inner.items() if not isinstance(value, dict) and key not in OF_THE_FILE
        ]
    return places


@pytest.mark.parametrize(("name", "field"), left_out())
def test_a_field_left_out_is_what_transformers_takes(name: str, field: str) -> None:
    config = copy.deepcopy(FILES[name])
    inner = config.get("text_config", config)
    del inner[field]
    architecture = known()[config["architectures"][0]]
    try:
        theirs = structure(by_transformers(architecture, config))
    except (
        InputError,
        StrictDataclassError,
        ValueError,
        TypeError,
    ):  # their class refuses what is left, or ours what they make of it
        with pytest.raises(InputError):
            structure(config)
        return
    assert structure(config) == theirs
