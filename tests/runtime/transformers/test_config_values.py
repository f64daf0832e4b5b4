"""A config.json that becomes no model is one refusal with field and value, before weights load, never a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.strategy.file import CommplanError, InputError, Op, Parallelism, StrategyFile, save
from commplan.runtime import load_model
from commplan.runtime.errors import RefusedError

from ...planner.cli.commandline import answer, refused, run
from ..strategy_files import ranges_of, strategy_file

NONE, AR = Op("none"), Op("all_reduce")
Checkpoint = Callable[..., Path]
DELETED = "deleted"  # a text, since tests are named by it


def plan_for(folder: Path, ranks: int = 1) -> StrategyFile:
    sums = AR if ranks > 1 else NONE
    return strategy_file(folder, Parallelism(ranks), {"prefill": [ranges_of([sums, *([NONE, sums] * 4), NONE])]})


@pytest.fixture
def spoilt(checkpoint: Checkpoint, tmp_path: Path) -> Callable[..., Path]:
    """`spoilt("qwen3", hidden_act=3)`: a copy of a checkpoint with other fields in its config.json."""

    def spoil(family: str, **fields: Any) -> Path:
        folder = Path(shutil.copytree(checkpoint(family), tmp_path / "spoilt", dirs_exist_ok=True))
        config = json.loads((folder / "config.json").read_text()) | fields
        kept = {key: value for key, value in config.items() if value is not DELETED}
        (folder / "config.json").write_text(json.dumps(kept))
        return folder

    return spoil


@pytest.fixture
def no_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("ranks were started")

    monkeypatch.setattr("commplan.runtime.ranks.spawning.run_ranks", started)


@pytest.mark.parametrize("family", ["qwen3", "deepseek_v3"])
@pytest.mark.parametrize("found", ["kimi_k2", "llama", "", 3, ["qwen3"], DELETED], ids=str)
@pytest.mark.usefixtures("no_ranks")
def test_another_model_type_is_refused_by_every_command(
    family: str, found: Any, spoilt: Callable[..., Path], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    plan, folder = plan_for(checkpoint(family)), spoilt(family, model_type=found)
    with pytest.raises(RefusedError) as raised:
        load_model(folder, plan)
    assert (raised.value.file, raised.value.field) == (str(folder / "config.json"), "model_type")
    assert raised.value.value == ("none" if found is DELETED else found)
    assert f"model type {family} alone" in raised.value.message
    save(plan, tmp_path / "plan.yaml")
    for arguments in (("check",), ("run", "--tokens", "1")):
        error = refused(arguments[0], tmp_path / "plan.yaml", "--model", folder, *arguments[1:])
        assert error["field"] == "model_type"


@pytest.mark.parametrize(
    ("family", "fields", "field"),
    [
        ("qwen3", {"rope_scaling": {"rope_type": "nope"}}, "rope_scaling.rope_type"),
        ("qwen3", {"rope_scaling": {"type": 3}}, "rope_scaling.type"),
        ("qwen3", {"rope_parameters": {"rope_type": "nope", "rope_theta": 1e4}}, "rope_parameters.rope_type"),
        ("qwen3", {"rope_scaling": "yarn"}, "rope_scaling"),
        ("qwen3", {"hidden_act": "nope"}, "hidden_act"),
        ("qwen3", {"hidden_act": ["silu"]}, "hidden_act"),
        ("qwen3", {"head_dim": -1}, "head_dim"),
        ("qwen3", {"architectures": None}, "architectures"),
        ("qwen3", {"quantization_config": {}}, "quantization_config"),
        ("qwen3", {"sliding_window": "wide"}, "sliding_window"),
        ("deepseek_v3", {"sliding_window": 1e300}, "sliding_window"),
        ("qwen3", {"vocab_size": 10**30}, "vocab_size"),
        ("qwen3", {"rms_norm_eps": "small"}, None),
        ("qwen3", {"layer_types": ["full_attention"]}, "layer_types"),
        ("qwen3", {"pad_token_id": 10**9}, None),
        ("qwen3", {"id2label": 3}, None),
        ("qwen3", {"num_labels": "x"}, None),
        ("qwen3", {"auto_map": 3}, None),
        ("qwen3", {"dtype": "nope"}, None),
        ("deepseek_v3", {"rope_scaling": {"type": "yarn"}}, None),
        ("deepseek_v3", {"rope_scaling": {"type": "yarn", "factor": "x"}}, None),
        ("deepseek_v3", {"n_group": 0}, "n_group"),
        ("deepseek_v3", {"n_group": 3}, "n_group"),
        ("deepseek_v3", {"n_group": 8}, "n_group"),
        ("deepseek_v3", {"topk_group": 99}, "topk_group"),
        ("deepseek_v3", {"topk_group": None}, "topk_group"),
        ("deepseek_v3", {"topk_group": DELETED}, "topk_group"),
        ("deepseek_v3", {"routed_scaling_factor": "x"}, None),
    ],
    ids=str,
)
def test_a_value_that_transformers_fails_on_is_one_refusal_that_names_the_file(
    family: str, fields: dict[str, Any], field: str | None, spoilt: Callable[..., Path], checkpoint: Checkpoint
) -> None:
    folder = spoilt(family, **fields)
    with pytest.raises(CommplanError) as raised:
        load_model(folder, plan_for(checkpoint(family)))
    assert isinstance(raised.value, RefusedError | InputError)
    assert (raised.value.file, raised.value.field) == (str(folder / "config.json"), field)
    assert field is not None or "makes no model of it" in raised.value.message
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_ranks_say_it_once(spoilt: Callable[..., Path], checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = spoilt("qwen3", rope_scaling={"rope_type": "nope"})
    save(plan_for(checkpoint("qwen3"), 2), tmp_path / "plan.yaml")
    done = run("check", tmp_path / "plan.yaml", "--model", folder)
    assert (done.code, done.out) == (2, "")
    (line,) = [line for line in done.err.splitlines() if not line.startswith("Loading")]
    assert line.startswith(f"error: {folder / 'config.json'}:1: rope_scaling.rope_type: accepted: default,")


@pytest.mark.slow
def test_a_null_quantisation_is_none(spoilt: Callable[..., Path], checkpoint: Checkpoint, tmp_path: Path) -> None:
    import torch

    folder = spoilt("qwen3", quantization_config=None)
    logits = []
    for path in (checkpoint("qwen3"), folder):
        executor = load_model(path, plan_for(path))
        with torch.no_grad(), executor.forward("prefill"):
            logits.append(executor.model(torch.tensor([[3, 1, 2]])).logits)
    assert torch.equal(*logits)
    save(plan_for(folder, 2), tmp_path / "plan.yaml")
    assert run("check", tmp_path / "plan.yaml", "--model", folder, "--max-tokens", "4").code == 0


def test_a_null_quantisation_is_none_for_the_planner_too(spoilt: Callable[..., Path], checkpoint: Checkpoint) -> None:
    models = [
        answer("import-model", path / "config.json", "--name", "x")
        for path in (checkpoint("qwen3"), spoilt("qwen3", quantization_config=None))
    ]
    assert models[0] == models[1]


@pytest.mark.parametrize(
    ("arguments", "field", "words"),
    [
        (("--prompt", "hello"), "--prompt", "the checkpoint has no tokenizer"),
        (("--prompt", ""), "--prompt", "the checkpoint has no tokenizer"),
        (("--tokens", "1,5000"), "--tokens", "from 0 to"),
        (("--tokens", "-1"), "--tokens", "from 0 to"),
        (("--tokens", ""), "--tokens", "whole numbers"),
        (("--tokens", "1,2", "--prompt", "hello"), "--prompt", "either --prompt or --tokens"),
    ],
)
@pytest.mark.usefixtures("no_ranks")
def test_what_run_cannot_go_on_from_is_refused_before_ranks_start(
    arguments: tuple[str, ...], field: str, words: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = checkpoint("qwen3")
    save(plan_for(folder, 2), tmp_path / "plan.yaml")
    error = refused("run", tmp_path / "plan.yaml", "--model", folder, *arguments)
    assert error["field"] == field
    assert words in error["message"]


@pytest.mark.parametrize("content", ["{", "[]", '{"model": 3}'])
@pytest.mark.usefixtures("no_ranks")
def test_a_tokenizer_that_cannot_be_read_is_refused_before_ranks_start(
    content: str, spoilt: Callable[..., Path], tmp_path: Path
) -> None:
    folder = spoilt("qwen3")
    (folder / "tokenizer.json").write_text(content)
    save(plan_for(folder, 2), tmp_path / "plan.yaml")
    assert refused("run", tmp_path / "plan.yaml", "--model", folder, "--prompt", "hello")["field"] == "--prompt"
