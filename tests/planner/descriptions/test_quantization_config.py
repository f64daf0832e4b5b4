"""`quantization_config` of a config.json: the type of the weights, their blocks, and the parts left as they are.

The sections are those of published checkpoints: DeepSeek-R1, MiniMax-M2.5, Kimi-K2.5, Kimi-K3, gpt-oss-120b; GPTQ and
AWQ as their tools write them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.descriptions.loader import load_model, load_setup
from commplan.planner.strategy.errors import InputError
from commplan.planner.strategy.file.fingerprint import config_fingerprint

from ..cli.commandline import answer, refused, run

CONFIGS = Path(__file__).parent / "hf_configs"
MOE = "qwen3-235b-a22b"
R1_FP8 = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}
MINIMAX = {
    "quant_method": "fp8",
    "fmt": "float8_e4m3fn",
    "weight_block_size": [128, 128],
    "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"],
}
NOT_EXPERTS = ["re:.*self_attn.*", "re:.*shared_experts.*", "re:.*mlp\\.(gate|up|gate_up|down)_proj.*"]


def compressed(weights: dict[str, Any], activations: Any = None, ignore: tuple[str, ...] = ("lm_head",)) -> Any:
    group = {"input_activations": activations, "targets": ["Linear"], "weights": weights}
    return {"config_groups": {"group_0": group}, "ignore": list(ignore), "quant_method": "compressed-tensors"}


INT4 = {"group_size": 32, "num_bits": 4, "strategy": "group", "type": "int"}
MXFP4 = {"group_size": 32, "num_bits": 4, "strategy": "group", "type": "float", "scale_dtype": "torch.uint8"}
CHANNEL = {"group_size": None, "num_bits": 8, "strategy": "channel", "type": "int"}
FLOAT8 = {"block_structure": [128, 128], "num_bits": 8, "strategy": "block", "type": "float"}
ACTIVATIONS = {"dynamic": True, "num_bits": 8}
GPT_OSS = {"modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router"], "quant_method": "mxfp4"}
KIMI_K25 = compressed(INT4, ignore=("lm_head", *NOT_EXPERTS))
KIMI_K3 = compressed(MXFP4, ignore=(*NOT_EXPERTS, "re:.*lm_head.*"))
GPTQ = {"bits": 4, "group_size": 128, "desc_act": False, "quant_method": "gptq"}
LEFT = ("attention", "dense_mlp", "shared_experts")


def config(folder: Path, quantization: Any, name: str = MOE) -> Path:
    """The config.json of a model with a quantization_config."""
    data = json.loads((CONFIGS / f"{name}.json").read_text())
    path = folder / "config.json"
    path.write_text(json.dumps(data | {"quantization_config": quantization}))
    return path


@pytest.mark.parametrize(
    ("quantization", "weights", "block", "left"),
    [
        (R1_FP8, "fp8", (128, 128), ()),
        (MINIMAX, "fp8", (128, 128), ()),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "fp8", None, ()),
        ({**R1_FP8, "weight_block_size": None}, "fp8", None, ()),
        (KIMI_K25, "w4a16", (1, 32), LEFT),
        (KIMI_K3, "mxfp4", (1, 32), LEFT),
        (GPT_OSS, "mxfp4", (1, 32), ("attention",)),
        (compressed(CHANNEL, ACTIVATIONS), "int8", None, ()),
        (compressed(CHANNEL), "w8a16", None, ()),
        (compressed(FLOAT8, ACTIVATIONS), "fp8", (128, 128), ()),
        (GPTQ, "w4a16", (1, 128), ()),
        ({**GPTQ, "bits": 8, "group_size": -1}, "w8a16", None, ()),
        ({"w_bit": 4, "q_group_size": 64, "quant_method": "awq"}, "w4a16", (1, 64), ()),
        ({**GPTQ, "modules_to_not_convert": ["self_attn", "mlp.gate"]}, "w4a16", (1, 128), ("attention",)),
        ({**GPTQ, "modules_to_not_convert": ["model.layers.0.self_attn"]}, "w4a16", (1, 128), ()),  # one layer of 94
    ],
)
def test_a_published_section_is_read(tmp_path, quantization, weights, block, left):
    found = load_model(str(config(tmp_path, quantization))).quantization
    assert (found.weights, found.block, found.unquantized) == (weights, block, left)


@pytest.mark.parametrize("quantization", [None, "left out"])
def test_null_is_none(tmp_path, quantization):
    path = config(tmp_path, None) if quantization is None else CONFIGS / f"{MOE}.json"
    assert load_model(str(path)).quantization is None


def test_it_is_read_from_the_text_config_too(tmp_path):
    data = json.loads((CONFIGS / "qwen3.5-397b-a17b.json").read_text())
    data["text_config"]["quantization_config"] = R1_FP8
    path = tmp_path / "config.json"
    path.write_text(json.dumps(data))
    assert load_model(str(path)).quantization.weights == "fp8"


@pytest.mark.parametrize(
    ("quantization", "field", "words"),
    [
        ({"quant_method": "bitsandbytes"}, "quantization_config.quant_method", "one of fp8, compressed-tensors"),
        ({}, "quantization_config.quant_method", "is missing"),
        ([], "quantization_config", "a mapping"),
        ({**R1_FP8, "weight_block_size": [128]}, "quantization_config.weight_block_size", "[rows, columns]"),
        ({**GPTQ, "bits": 3}, "quantization_config.bits", "4 or 8"),
        ({**GPTQ, "group_size": 0}, "quantization_config.group_size", "a whole number from 1"),
        ({"quant_method": "compressed-tensors"}, "quantization_config.config_groups", "one scheme"),
        (compressed(MXFP4, ACTIVATIONS), "quantization_config.config_groups.group_0.weights.num_bits", "4-bit float"),
        (compressed({**INT4, "num_bits": 2}), "quantization_config.config_groups.group_0.weights.num_bits", "2-bit"),
        (compressed(INT4, ignore=("re:(",)), "quantization_config.ignore", "not a regular expression"),
        (compressed(INT4, ignore=("re:([a-z._0-9]+)+!",)), "quantization_config.ignore", "none of a group"),
        (compressed(INT4, ignore=("re:.*.*.*.*x",)), "quantization_config.ignore", "3 repetitions"),
        (compressed(INT4, ignore=("a*b*c*d*e",)), "quantization_config.ignore", "3 repetitions"),
    ],
)
def test_what_cannot_be_priced_is_refused_with_its_field(tmp_path, quantization, field, words):
    error = refused("import-model", config(tmp_path, quantization))
    assert error["field"] == field
    assert words in error["message"]


def test_two_schemes_in_one_checkpoint_are_refused(tmp_path):
    both = compressed(INT4)
    both["config_groups"]["group_1"] = compressed(CHANNEL)["config_groups"]["group_0"]
    with pytest.raises(InputError, match="one scheme for all groups"):
        load_model(str(config(tmp_path, both)))


def test_the_structure_of_a_model_is_the_same_in_every_type():
    data = json.loads((CONFIGS / "deepseek-r1.json").read_text())
    assert config_fingerprint(data) == config_fingerprint(data | {"quantization_config": None})


def test_an_imported_model_keeps_it(tmp_path):
    out = tmp_path / "model.yaml"
    answer("import-model", config(tmp_path, KIMI_K25), "-o", out)
    assert load_model(str(out)).quantization == load_model(str(tmp_path / "config.json")).quantization


# ---- in a deployment -------------------------------------------------------------------------------------------------


def deployment(folder: Path, model: Path | str, dtypes: str = "") -> Path:
    path = folder / "deployment.yaml"
    path.write_text(
        f"""schema: commplan/deployment/v1
name: given
model: {model}
hardware: h200-8
executor: plan_only
parallelism: {{tp: 8, ep: 8}}
{dtypes}
modes: {{decode: {{tokens: [1, 8], context_tokens: 1024}}}}
"""
    )
    return path


def test_the_checkpoint_says_the_type_where_the_deployment_does_not(tmp_path):
    setup = load_setup(str(deployment(tmp_path, config(tmp_path, KIMI_K25))))
    assert (setup.weights.dtype, setup.weights.block, setup.weights.unquantized) == ("w4a16", (1, 32), LEFT)
    assert setup.notes == ()


def test_a_checkpoint_that_is_not_quantised_is_bf16(tmp_path):
    assert load_setup(str(deployment(tmp_path, MOE))).weights.dtype == "bf16"


@pytest.mark.parametrize(
    ("quantization", "given", "note"),
    [
        (R1_FP8, "bf16", "dtypes.weights is bf16, and the checkpoint of MODEL is in fp8"),
        (None, "fp8", "dtypes.weights is fp8, and the checkpoint of MODEL is not quantised"),
        (R1_FP8, "fp8", None),
        (None, "bf16", None),
    ],
)
def test_a_type_that_is_not_the_checkpoints_is_said(tmp_path, quantization, given, note):
    path = deployment(tmp_path, config(tmp_path, quantization), f"dtypes: {{weights: {given}}}")
    setup = load_setup(str(path))
    assert setup.weights.dtype == given
    assert [text.startswith((note or "").replace("MODEL", setup.model.name)) for text in setup.notes] == [True] * bool(
        note
    )
    assert (run("plan", path).err == "") == (note is None)


def test_a_quantised_checkpoint_is_refused_for_the_transformers_executor(tmp_path):
    path = deployment(tmp_path, config(tmp_path, R1_FP8))
    path.write_text(path.read_text().replace("plan_only", "transformers"))
    error = refused("plan", path)
    assert (error["field"], error["value"]) == ("dtypes.weights", "fp8")


def test_blocks_of_another_type_than_the_checkpoints_are_those_of_the_type(tmp_path):
    path = deployment(tmp_path, config(tmp_path, KIMI_K25), "dtypes: {weights: fp8}")
    assert (load_setup(str(path)).weights.block, load_setup(str(path)).weights.unquantized) == ((128, 128), ())
    path = deployment(tmp_path, config(tmp_path, R1_FP8), "dtypes: {weights: fp8, weight_block: null}")
    assert load_setup(str(path)).weights.block is None
