"""A rotated checkpoint is the same model, turned: logits stay, norms are ones, and every file is of the same form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from commplan.runtime.errors import RefusedError

from ..transformers.tiny_models import FAMILIES, Family, write_checkpoint
from .rotating import logits_of, model_of, rotated

Checkpoint = Callable[..., Path]
ROTATED = [family for family in FAMILIES if family != "deepseek_v4"]
ONE_PLUS = ("qwen3_5", "qwen3_5_moe", "qwen3_next")  # whose norms add one to their weight


@pytest.mark.parametrize("family", ROTATED)
def test_logits_are_those_of_the_original(family: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    before, after = model_of(checkpoint(family)), model_of(rotated(checkpoint(family), tmp_path / "rotated"))
    wanted, found = logits_of(before), logits_of(after)
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert not torch.equal(after.model.embed_tokens.weight, before.model.embed_tokens.weight)


SPELLED_ALIKE = {
    "mistral": Family("MistralForCausalLM", {"sliding_window": None}),
    "qwen2_moe": Family(
        "Qwen2MoeForCausalLM",
        {
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
            "mlp_only_layers": [],
        },
    ),
}


@pytest.mark.parametrize("name", SPELLED_ALIKE)
def test_so_they_are_of_models_that_no_adapter_is_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FAMILIES, name, SPELLED_ALIKE[name])
    folder = write_checkpoint(name, tmp_path / "before")
    wanted, found = (logits_of(model_of(each)) for each in (folder, rotated(folder, tmp_path / "rotated")))
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("family", ["qwen3", "deepseek_v3"])
def test_so_they_are_when_blocks_of_columns_are_rotated(family: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    wanted = logits_of(model_of(checkpoint(family)))
    found = logits_of(model_of(rotated(checkpoint(family), tmp_path / "rotated", block=16)))
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("family", ["llama", "qwen3_moe", "deepseek_v3", "qwen3_next"])
def test_the_stream_itself_is_the_old_one_rotated(family: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    from commplan.runtime.rotation.hadamard import Rotation

    before, after = model_of(checkpoint(family)), model_of(rotated(checkpoint(family), tmp_path / "rotated"))
    ids = torch.arange(20).view(2, 10)
    with torch.no_grad():
        old, new = (model(ids, output_hidden_states=True).hidden_states[:2] for model in (before, after))
    for was, is_ in zip(old, new, strict=True):  # the embedding, and what the first layer leaves
        torch.testing.assert_close(is_.double(), Rotation(64, 64).apply(was), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["qwen2", "deepseek_v3", "qwen3_next"])
def test_norms_of_the_stream_multiply_by_one_and_those_of_heads_stay(
    family: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    before = load_file(checkpoint(family) / "model.safetensors")
    after = load_file(rotated(checkpoint(family), tmp_path / "rotated") / "model.safetensors")
    ones = 0.0 if family in ONE_PLUS else 1.0
    for name, tensor in after.items():
        if name.endswith(("input_layernorm.weight", "post_attention_layernorm.weight", "model.norm.weight")):
            assert torch.equal(tensor, torch.full_like(tensor, ones)), name
        elif "norm" in name:
            assert torch.equal(tensor, before[name]), name


def test_a_tied_head_is_untied(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("qwen3")
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    made = rotated(folder, tmp_path / "rotated")
    assert json.loads((made / "config.json").read_text())["tie_word_embeddings"] is False
    model = model_of(made)
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_config_json_says_how_it_was_rotated_and_is_otherwise_as_it_was(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("llama")
    made = rotated(folder, tmp_path / "rotated", block=32)
    config = json.loads((made / "config.json").read_text())
    assert config.pop("commplan_rotation") == {"block": 32, "seed": 0}
    assert config == json.loads((folder / "config.json").read_text())


def dtypes_of(opened: Any) -> dict[str, str]:
    return {name: opened.get_slice(name).get_dtype() for name in list(opened.keys())}


def in_shards(family: str, checkpoint: Checkpoint, folder: Path, dtype: torch.dtype) -> Path:
    """The tiny checkpoint in several files, with what else lies beside weights."""
    model = model_of(checkpoint(family)).to(dtype)
    model.config.dtype = dtype
    model.save_pretrained(folder, max_shard_size="40KB")
    (folder / "tokenizer.json").write_text('{"a": "tokenizer"}')
    (folder / "pytorch_model.bin").write_bytes(b"old weights")
    (folder / "original").mkdir()
    return folder


# In bf16 a router's choice may flip over a rounding, so the one with experts keeps fp32; `check` allows bf16 0.08.
@pytest.mark.parametrize(
    ("family", "dtype", "bound"), [("qwen3", torch.bfloat16, 0.08), ("deepseek_v3", torch.float32, 1e-5)]
)
def test_it_has_the_files_types_and_order_of_the_original(
    family: str, dtype: torch.dtype, bound: float, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = in_shards(family, checkpoint, tmp_path / "shards", dtype)
    made = rotated(folder, tmp_path / "rotated")
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(shards) > 2 and not any((folder / name).samefile(made / name) for name in shards)
    assert sorted(path.name for path in made.glob("*.safetensors")) == shards
    assert not (made / "pytorch_model.bin").exists() and not (made / "original").exists()
    assert (made / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    index = json.loads((made / "model.safetensors.index.json").read_text())
    held: dict[str, str] = {}
    for shard in shards:
        with safe_open(folder / shard, "pt") as old, safe_open(made / shard, "pt") as new:
            assert dtypes_of(old).items() <= dtypes_of(new).items()
            assert old.metadata() == new.metadata()
            held |= dict.fromkeys(new.keys(), shard)
    assert index["weight_map"] == held
    wanted, found = logits_of(model_of(folder)), logits_of(model_of(made))
    assert (found - wanted).abs().max() < bound * wanted.abs().max()


def with_drafts(folder: Path, checkpoint: Checkpoint) -> Path:
    """A checkpoint with a layer more than the model has: it drafts."""
    weights = load_file(checkpoint("deepseek_v3") / "model.safetensors")
    weights["model.layers.2.eh_proj.weight"] = torch.zeros(64, 128)
    weights["model.layers.2.hnorm.weight"] = torch.ones(64)
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((checkpoint("deepseek_v3") / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_nextn_predict_layers": 1}))
    return folder


def test_layers_that_draft_are_refused_or_left_out_where_that_is_asked_for(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = with_drafts(tmp_path / "drafts", checkpoint)
    with pytest.raises(RefusedError, match="--without-mtp leaves them out"):
        rotated(folder, tmp_path / "refused")
    made = rotated(folder, tmp_path / "rotated", without_mtp=True)
    assert json.loads((made / "config.json").read_text())["num_nextn_predict_layers"] == 0
    assert not any(name.startswith("model.layers.2.") for name in load_file(made / "model.safetensors"))


def with_an_outlier_channel(weights: dict[str, Any]) -> None:
    """A channel of the stream 200 times the others; its norms bring it back to size."""
    for layer in range(2):
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            weights[f"model.layers.{layer}.{name}.weight"][5] *= 200
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{name}.weight"][5] /= 200
    weights["model.norm.weight"][5] /= 200


def int8_error(model: Any) -> float:
    """Relative error of the logits where what o_proj and down_proj give is quantised per token."""
    exact = logits_of(model)

    def quantise(module: Any, given: Any, rows: torch.Tensor) -> torch.Tensor:
        scale = rows.abs().amax(-1, keepdim=True) / 127
        return (rows / scale).round() * scale

    for layer in model.model.layers:
        layer.self_attn.o_proj.register_forward_hook(quantise)
        layer.mlp.down_proj.register_forward_hook(quantise)
    return float((logits_of(model) - exact).norm() / exact.norm())


def test_int8_per_token_loses_a_fraction_once_an_outlier_is_spread(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "outlier"
    folder.mkdir()
    weights = load_file(checkpoint("llama") / "model.safetensors")
    with_an_outlier_channel(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_bytes((checkpoint("llama") / "config.json").read_bytes())
    as_it_is, turned = int8_error(model_of(folder)), int8_error(model_of(rotated(folder, tmp_path / "rotated")))
    assert turned < as_it_is / 3
