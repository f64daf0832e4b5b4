"""What does not fit is refused before anything runs: field, value, reason and the way out, and exit code 2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from commplan.planner.strategy.file import LayerOps, Op, Parallelism, RangePlan, StrategyFile, save
from commplan.runtime import Executor, load_model
from commplan.runtime.errors import RefusedError

from ...planner.cli.commandline import refused
from ..strategy_files import ranges_of, strategy_file

ONE = Parallelism(1)
NONE, AR = Op("none"), Op("all_reduce")
Checkpoint = Callable[..., Path]


def whole(layers: int = 2, sums: Op = AR) -> RangePlan:
    return ranges_of([sums, *([NONE, sums, NONE, sums] * layers), NONE], 1, 64)


def on_two_ranks(folder: Path) -> StrategyFile:
    return strategy_file(folder, Parallelism(2), {"prefill": [whole()], "decode": [whole()]})


def on_one_rank(folder: Path, *modes: str) -> StrategyFile:
    return strategy_file(folder, ONE, {mode: [whole(sums=NONE)] for mode in modes or ("prefill", "decode")})


def change_impl(file: StrategyFile) -> StrategyFile:
    (plan,) = file.modes["decode"]
    layers = (plan.layers[0], replace(plan.layers[1], mlp_out=replace(AR, impl="flashinfer")))
    return replace(file, modes={**file.modes, "decode": (replace(plan, layers=layers),)})


def in_another_format(file: StrategyFile) -> StrategyFile:
    (plan,) = file.modes["decode"]
    int8 = Op("quantized_all_reduce", algorithm="gather", wire_name="int8", scale_group="64")
    layers = (plan.layers[0], replace(plan.layers[1], mlp_out=int8))
    return replace(file, modes={**file.modes, "decode": (replace(plan, layers=layers),)})


def misplaced(file: StrategyFile) -> StrategyFile:
    (plan,) = file.modes["prefill"]
    layers = (LayerOps(NONE, Op("reduce_scatter"), NONE, AR), plan.layers[1])
    return replace(file, modes={**file.modes, "prefill": (replace(plan, layers=layers),)})


CHANGES: dict[str, tuple[Callable[[StrategyFile], StrategyFile], str, Any, tuple[str, ...]]] = {
    "executor sglang": (
        lambda f: replace(f, executor="sglang"),
        "executor",
        "sglang",
        ("made for executor transformers", "commplan plan DEPLOYMENT --set executor=transformers"),
    ),
    "executor plan_only": (
        lambda f: replace(f, executor="plan_only"),
        "executor",
        "plan_only",
        ("--set executor=transformers",),
    ),
    "unknown activations": (
        lambda f: replace(f, deployment=replace(f.deployment, activations="fp8")),
        "deployment.activations",
        "fp8",
        ("fp32, bf16, fp16", "--set dtypes.activations=bf16"),
    ),
    "a wire format in which the library alone does not sum": (
        in_another_format,
        "modes.decode[0].layers.1.mlp_out",
        "quantized_all_reduce(wire=int8, group=64, algorithm=gather)",
        (
            "gloo alone does not perform quantized_all_reduce",
            "name an impl that does (commplan_triton, commplan_triton_norm, composed, composed_norm, host_staged",
        ),
    ),
    "another architecture": (
        lambda f: replace(f, model=replace(f.model, name="other", architecture="Qwen2ForCausalLM")),
        "architectures",
        "Qwen3ForCausalLM",
        ("the plan is for Qwen2ForCausalLM (other)", "plan again with `model:`"),
    ),
    "another model of its architecture": (
        lambda f: replace(f, model=replace(f.model, fingerprint="0123456789abcdef")),
        "model.fingerprint",
        None,
        ("another model (qwen3, fingerprint 0123456789abcdef)", "plan again with `model:`"),
    ),
    "an edited hidden size": (
        lambda f: replace(f, model=replace(f.model, hidden_size=128)),
        "model.hidden_size",
        128,
        ("the checkpoint has 64", "though the fingerprint is its own", "plan again"),
    ),
    "an impl of somebody else": (
        change_impl,
        "modes.decode[0].layers.1.mlp_out.impl",
        "flashinfer",
        ("performs all_reduce by gloo alone", "leave `impl` out"),
    ),
    "an op that does not connect": (misplaced, "modes.prefill[0].layers.0.mlp_in", "none", ("token_sharded",)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_plan_that_does_not_fit_is_refused_by_check_run_and_load(
    change: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    spoil, field, value, words = CHANGES[change]
    folder = checkpoint("qwen3")
    spoilt = spoil(on_two_ranks(folder))
    with pytest.raises(RefusedError) as raised:
        load_model(folder, spoilt)
    assert_names(vars(raised.value), field, value, words)
    save(spoilt, tmp_path / "plan.yaml")
    for arguments in (["check"], ["run", "--tokens", "1,2"]):
        error = refused(*arguments, tmp_path / "plan.yaml", "--model", folder)
        assert_names(error, field, value, words)


def assert_names(error: dict[str, Any], field: str, value: Any, words: tuple[str, ...]) -> None:
    assert error["field"] == field
    assert error["value"] == value or value is None
    for word in words:
        assert word in error["message"]


def test_a_plan_for_more_ranks_names_the_ways_to_start_them(checkpoint: Checkpoint) -> None:
    folder = checkpoint("qwen3")
    with pytest.raises(RefusedError) as raised:
        load_model(folder, on_two_ranks(folder))
    words = ("this start has 1 rank;", "torchrun --nproc-per-node 2", "commplan check / run", "--set parallelism.tp=1")
    assert_names(vars(raised.value), "parallelism.tp", 2, words)


def test_check_spawns_no_other_number_of_ranks_than_planned(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("qwen3")
    save(on_two_ranks(folder), tmp_path / "plan.yaml")
    error = refused("check", tmp_path / "plan.yaml", "--model", folder, "--nproc", 3)
    assert_names(error, "--nproc", 3, ("the plan is for 2 ranks", "leave it out"))


def test_experts_over_some_of_the_ranks_are_refused(checkpoint: Checkpoint) -> None:
    folder = checkpoint("qwen3_moe")
    file = strategy_file(folder, Parallelism(4, 1, 2), {"prefill": [whole()]})
    with pytest.raises(RefusedError) as raised:
        load_model(folder, file)
    assert_names(vars(raised.value), "parallelism.ep", 2, ("1 or all 4 ranks", "--set parallelism.ep=4"))


def test_a_plan_of_several_stages_is_refused(checkpoint: Checkpoint) -> None:
    folder = checkpoint("qwen3")
    file = strategy_file(folder, Parallelism(1, pp=2), {"prefill": [whole(sums=NONE)]})
    with pytest.raises(RefusedError) as raised:
        load_model(folder, file)
    assert_names(vars(raised.value), "parallelism.pp", 2, ("all layers on every rank", "--set parallelism.pp=1"))


def test_an_architecture_without_adapter_is_refused_by_name(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("qwen3")
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["MambaForCausalLM"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(RefusedError) as raised:
        load_model(tmp_path, on_one_rank(folder))
    words = ("no adapter", "DeepseekV3ForCausalLM", "Qwen3MoeForCausalLM")
    assert_names(vars(raised.value), "architectures", "MambaForCausalLM", words)


@pytest.mark.parametrize(
    ("backend", "words"),
    [("nccl", ("cannot be used here", "no CUDA device", "cpu-gloo")), ("hccl", ("torch_npu", "pip install '.[npu]'"))],
)
def test_a_plan_for_a_device_that_is_not_there_is_refused(
    backend: str, words: tuple[str, ...], checkpoint: Checkpoint
) -> None:
    folder = checkpoint("qwen3")
    file = on_one_rank(folder)
    with pytest.raises(RefusedError) as raised:
        load_model(folder, replace(file, hardware=replace(file.hardware, backend=backend)))
    assert_names(vars(raised.value), "hardware.backend", backend, words)


# ---- checkpoints -------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A checkpoint to spoil."""
    return Path(shutil.copytree(checkpoint("qwen3"), tmp_path / "copied"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ("no such file", "checkpoint directory is expected")),
        ("{", ("not valid JSON", "checkpoint directory is expected")),
        ("[]", ("must be a mapping",)),
        ('{"a": 1, "a": 2}', ("duplicate key",)),
        ("[" * 100_000, ("nested",)),
    ],
    ids=["missing", "truncated", "a list", "a key twice", "nested too deep"],
)
def test_an_unreadable_config_is_refused(
    content: str | None, words: tuple[str, ...], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(RefusedError) as raised:
        load_model(tmp_path, on_one_rank(checkpoint("qwen3")))
    assert raised.value.file == str(tmp_path / "config.json")
    assert all(word in raised.value.message for word in words)


def test_a_quantised_checkpoint_is_refused(copied: Path, checkpoint: Checkpoint) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(RefusedError, match="quantised checkpoints are not supported yet; take one in bf16"):
        load_model(copied, on_one_rank(checkpoint("qwen3")))


def test_a_truncated_weights_file_is_refused(copied: Path) -> None:
    weights = (copied / "model.safetensors").read_bytes()
    (copied / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(RefusedError, match=r"model.safetensors: not a safetensors file .*save the checkpoint again"):
        load_model(copied, on_one_rank(copied))


def test_a_checkpoint_that_lacks_a_weight_is_refused_instead_of_filled_with_random_numbers(copied: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copied / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        RefusedError, match=r"copied: has no model\.layers\.1\.mlp\.down_proj\.weight; download or save"
    ):
        load_model(copied, on_one_rank(copied))


# ---- forwards ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prefill_only(tmp_path_factory: pytest.TempPathFactory) -> Executor:
    """A model on one rank under a plan for prefills of 1 to 64 tokens."""
    from .tiny_models import write_checkpoint

    folder = write_checkpoint("qwen3", tmp_path_factory.mktemp("prefill only") / "qwen3")
    return load_model(folder, on_one_rank(folder, "prefill"))


def ids(rows: int) -> Any:
    import torch

    return torch.zeros(1, rows, dtype=torch.int64)


@pytest.mark.parametrize(
    ("mode", "reason"),
    [("decode", "has no section in the strategy file; it has prefill"), ("idle", "is not a forward mode")],
)
def test_a_mode_without_a_section_is_refused(prefill_only: Executor, mode: str, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason) as raised, prefill_only.forward(mode):
        pass
    assert (raised.value.field, raised.value.value, raised.value.exit_code) == ("mode", mode, 2)


def test_a_forward_without_a_mode_is_refused(prefill_only: Executor) -> None:
    with pytest.raises(RefusedError, match=r"set the forward mode first: with executor\.forward"):
        prefill_only.model(ids(3))


def test_more_tokens_than_planned_are_refused_and_the_next_forward_runs(prefill_only: Executor) -> None:
    with prefill_only.forward("prefill"):
        with pytest.raises(
            RefusedError, match="planned for 1 to 64 tokens; send fewer at once, or plan again"
        ) as raised:
            prefill_only.model(ids(65))
        assert prefill_only.model(ids(64)).logits.shape[1] == 64
    assert (raised.value.field, raised.value.value) == ("modes.prefill", 65)


def test_generation_needs_both_modes_and_forwards_whose_mode_is_known(prefill_only: Executor) -> None:
    with pytest.raises(RefusedError, match="no section in the strategy file"):
        prefill_only.generate(ids(3), max_new_tokens=2)
    with pytest.raises(RefusedError, match="whose mode this runner does not know") as raised:
        prefill_only.generate(ids(3), prompt_lookup_num_tokens=2)
    assert raised.value.field == "prompt_lookup_num_tokens"


def test_weights_of_one_model_are_not_run_under_the_plan_of_another(prefill_only: Executor) -> None:
    other = replace(prefill_only.strategy, model=replace(prefill_only.strategy.model, fingerprint="0" * 16))
    with pytest.raises(RefusedError, match="load the model anew") as raised:
        prefill_only.switch(other)
    assert raised.value.field == "model.fingerprint"
    in_bf16 = replace(prefill_only.strategy.deployment, activations="bf16")
    with pytest.raises(RefusedError, match="loaded weights are for fp32"):
        prefill_only.switch(replace(prefill_only.strategy, deployment=in_bf16))
