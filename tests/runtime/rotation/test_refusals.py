"""What cannot be rotated is refused with the reason, and with what it can be done to instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from commplan.runtime.errors import RefusedError
from commplan.runtime.rotation.checkpoint import look_through
from commplan.runtime.rotation.readers import FAMILIES, check_config, place_of

from .rotating import rotated

Checkpoint = Callable[..., Path]

CONFIGS = [
    ({"model_type": "gpt2"}, "takes the mean off every row"),
    ({"model_type": "cohere"}, "takes the mean off every row"),
    ({"model_type": "gemma2"}, "norms sums before they join the stream"),
    ({"model_type": "olmo2"}, "norms sums before they join the stream"),
    ({"model_type": "gemma"}, "take its head from the embedding"),
    ({"model_type": "deepseek_v4"}, "its residual stream is several"),
    ({"model_type": "mamba"}, "how its layers meet the stream is not known; accepted: llama, "),
    ({"model_type": None}, "model_type: is missing; accepted: llama, "),
    ({"model_type": ["llama"]}, "model_type: is missing"),
    ({"model_type": "llama", "quantization_config": {"quant_method": "fp8"}}, "scales are of the channels as they are"),
    ({"model_type": "qwen3_5", "text_config": {"model_type": "qwen3_5_text"}}, "images enter the stream"),
    ({"model_type": "qwen2", "vision_config": {}}, "images enter the stream"),
    ({"model_type": "llama", "commplan_rotation": {"block": 64}}, "is rotated already"),
]


@pytest.mark.parametrize(("config", "reason"), CONFIGS, ids=[str(list(config.values())) for config, _ in CONFIGS])
def test_a_config_that_says_so_is_refused_with_the_reason(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(RefusedError) as refused:
        check_config(config)
    assert reason in str(refused.value)


def test_a_null_is_a_field_left_out() -> None:
    assert check_config({"model_type": "llama", "quantization_config": None}) == FAMILIES["llama"]


def spoilt(checkpoint: Checkpoint, folder: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> Path:
    """A tiny Llama with its weights and config.json changed."""
    weights = load_file(checkpoint("llama") / "model.safetensors")
    config = json.loads((checkpoint("llama") / "config.json").read_text())
    change(weights, config)
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


CHANGES: list[tuple[str, Callable[[dict[str, Any], dict[str, Any]], Any], str]] = [
    (
        "a tensor that nobody knows",
        lambda w, c: w.update({"model.layers.0.self_attn.value_bias": torch.zeros(64)}),
        "how model.layers.0.self_attn.value_bias meets the residual stream is not known",
    ),
    ("a classifier", lambda w, c: w.update({"score.weight": torch.zeros(2, 64)}), "how score.weight meets"),
    ("no head", lambda w, c: w.pop("lm_head.weight"), "has no lm_head.weight"),
    ("no norm", lambda w, c: w.pop("model.layers.1.input_layernorm.weight"), "has no model.layers.1.input_layernorm"),
    (
        "another width",
        lambda w, c: w.update({"model.layers.0.mlp.up_proj.weight": torch.zeros(96, 32)}),
        "hidden_size 64 is expected along axis 1 (got '[96, 32]')",
    ),
    (
        "a norm in two dimensions",
        lambda w, c: w.update({"model.layers.0.input_layernorm.weight": torch.ones(64, 1)}),
        "hidden_size 64 is expected along axis 0 (got '[64, 1]')",
    ),
    (
        "whole numbers",
        lambda w, c: w.update({"model.layers.0.mlp.up_proj.weight": torch.zeros(96, 64, dtype=torch.int8)}),
        "F32, BF16, F16 are rotated (got 'I8')",
    ),
    (
        "FP8",
        lambda w, c: w.update({"model.layers.0.mlp.up_proj.weight": torch.zeros(96, 64).to(torch.float8_e4m3fn)}),
        "F32, BF16, F16 are rotated (got 'F8_E4M3')",
    ),
    ("a size that is none", lambda w, c: c.update(hidden_size="wide"), "config.json: hidden_size"),
    (
        "layers that are missing",
        lambda w, c: c.update(num_hidden_layers=3),
        "has no model.layers.2.input_layernorm.weight",
    ),
]


@pytest.mark.parametrize(("change", "reason"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_a_checkpoint_that_cannot_be_is_refused_before_anything_is_written(
    change: Callable[..., None], reason: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = spoilt(checkpoint, tmp_path / "spoilt", change)
    with pytest.raises(RefusedError) as refused:
        look_through(folder)
    assert reason in str(refused.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_by_the_name_of_its_tensor(
    value: float, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    def change(weights: dict[str, Any], _: dict[str, Any]) -> None:
        weights["model.layers.1.mlp.down_proj.weight"][3, 3] = value

    folder = spoilt(checkpoint, tmp_path / "spoilt", change)
    with pytest.raises(RefusedError, match=r"model.layers.1.mlp.down_proj.weight: holds what is not finite"):
        rotated(folder, tmp_path / "rotated")


def test_what_grows_beyond_fp16_is_refused_and_not_written_as_infinity(checkpoint: Checkpoint, tmp_path: Path) -> None:
    def change(weights: dict[str, Any], _: dict[str, Any]) -> None:
        weights.update({name: tensor.half() for name, tensor in weights.items()})
        weights["model.embed_tokens.weight"].fill_(60000.0)

    folder = spoilt(checkpoint, tmp_path / "spoilt", change)
    with pytest.raises(RefusedError, match=r"grows beyond its type"):
        rotated(folder, tmp_path / "rotated")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 40), "not a safetensors file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no file named model.safetensors"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "no index of weights"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}})
            ),
            "No such file",
        ),
    ],
    ids=["noise", "gone", "no index", "no shard"],
)
def test_damaged_files_are_one_refusal(
    damage: Callable[[Path], None], reason: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = spoilt(checkpoint, tmp_path / "spoilt", lambda *_: None)
    damage(folder)
    with pytest.raises(RefusedError) as refused:
        look_through(folder)
    assert reason in str(refused.value)


def test_no_tensor_that_a_norm_stands_before_is_taken_for_one_that_stays() -> None:
    """Of every projection of the stream, in every spelling: it reads behind one of the two norms, or writes."""
    layer = "model.layers.0."
    for name in ("q_proj", "k_proj", "v_proj", "q_a_proj", "kv_a_proj_with_mqa", "indexer.wk", "indexer.weights_proj"):
        place = place_of(f"{layer}self_attn.{name}.weight", FAMILIES["deepseek_v32"], 1)
        assert place is not None and (place.axis, place.norm) == (1, f"{layer}input_layernorm.weight")
    for name in ("gate", "gate_proj", "experts.7.up_proj", "shared_experts.gate_proj", "shared_expert_gate"):
        place = place_of(f"{layer}mlp.{name}.weight", FAMILIES["qwen3_next"], 1)
        assert place is not None and (place.axis, place.norm) == (1, f"{layer}post_attention_layernorm.weight")
    for name in ("self_attn.o_proj.bias", "mlp.down_proj.weight", "mlp.experts.3.down_proj.weight"):
        place = place_of(f"{layer}{name}", FAMILIES["llama"], 1)
        assert place is not None and (place.axis, place.norm) == (0, None)
