"""From a checkpoint directory and a strategy file to an executor, on every rank alike."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from commplan.planner.strategy_file import StrategyFile, config_fingerprint, plan_hash
from commplan.planner.strategy_file import load as load_strategy

from .agreement import agree_at_start
from .backends import Backend, load_backend
from .errors import RefusedError
from .executor import Executor
from .experts import AllToAllExperts, LocalExperts
from .groups import Groups, make_groups
from .latent import Latents
from .models import Adapter, adapter_for
from .sharding import (
    attention_mesh,
    cut_kv_heads,
    keep_bias_once,
    local_rows,
    register_styles,
    shard_plan,
    to_local,
    vocabulary_slice,
)
from .vocabulary import FinalNorm, VocabParallelEmbedding, VocabParallelHead

EXECUTOR_NAME = "transformers"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_model(
    checkpoint: str | Path,
    strategy: str | Path | StrategyFile,
    *,
    timeout_s: float = 60.0,
    agree: bool = True,
    attn_implementation: str | None = None,
) -> Executor:
    """Load a Hugging Face checkpoint, sharded for the plan, and return its executor.

    Start it under torchrun with as many ranks as the plan has (one rank needs no launcher). Raises RefusedError, on
    every rank, where checkpoint, plan and machine do not fit together.
    """
    file = strategy if isinstance(strategy, StrategyFile) else load_strategy(strategy)
    backend = load_backend(file.hardware.backend)
    device = backend.device(int(os.environ.get("LOCAL_RANK", "0")))
    _join(file, backend, device, timeout_s)
    groups = make_groups(file.parallelism, timeout_s)
    config = _read_config(checkpoint)
    _check_fit(file, config)
    agree_at_start(groups, _what_must_agree(file, config))
    adapter = adapter_for(file.model.architecture)
    model = _sharded(checkpoint, file, adapter, groups, device, attn_implementation)
    executor = Executor(file, groups, backend, agree=agree)
    _take_over(model, executor, adapter)
    return executor


def _join(file: StrategyFile, backend: Backend, device: torch.device, timeout_s: float) -> None:
    if file.parallelism.tp == 1 or dist.is_initialized():
        return
    if "RANK" not in os.environ:
        raise RefusedError(
            f"the plan is for {file.parallelism.tp} ranks; start it with torchrun "
            f"--nproc-per-node {file.parallelism.tp}, or with commplan check / run, which spawn them",
            field="parallelism.tp",
            value=file.parallelism.tp,
        )
    from datetime import timedelta

    options: dict[str, Any] = {"device_id": device} if device.type == "cuda" else {}
    dist.init_process_group(backend.name, timeout=timedelta(seconds=timeout_s), **options)


def _read_config(checkpoint: str | Path) -> dict[str, Any]:
    path = Path(checkpoint) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RefusedError(f"no readable config.json: {error}", file=str(path)) from None
    if not isinstance(config, dict):
        raise RefusedError("is not a mapping", file=str(path))
    return config


def _check_fit(file: StrategyFile, config: dict[str, Any]) -> None:
    if file.executor != EXECUTOR_NAME:
        raise RefusedError(
            f"this runtime executes plans made for executor {EXECUTOR_NAME}; make one with "
            f"commplan plan {file.deployment.name} --set executor={EXECUTOR_NAME}",
            field="executor",
            value=file.executor,
        )
    architectures = config.get("architectures") or ["none"]
    if architectures[0] != file.model.architecture:
        raise RefusedError(
            f"the plan is for {file.model.architecture}", field="architectures", value=str(architectures[0])
        )
    found = config_fingerprint(config)
    if found != file.model.fingerprint:
        raise RefusedError(
            f"the plan is for another model ({file.model.name}, fingerprint {file.model.fingerprint}); "
            "plan again with `model:` set to this checkpoint's config.json",
            field="model.fingerprint",
            value=found,
        )
    if "quantization_config" in config:
        raise RefusedError("quantised checkpoints are not supported yet", field="quantization_config")
    p = file.parallelism
    if p.ep not in (1, p.tp):
        raise RefusedError(
            f"this runtime spreads experts over 1 or all {p.tp} ranks", field="parallelism.ep", value=p.ep
        )
    for layer_range in (r for ranges in file.modes.values() for r in ranges):
        for op in (op for layer in layer_range.layers for op in (layer.attn_out, layer.mlp_out, layer.mlp_in)):
            if op.impl is not None and op.impl != file.hardware.backend:
                raise RefusedError(f"this runtime has no impl {op.impl} of {op.name}", field="impl", value=op.impl)


def _what_must_agree(file: StrategyFile, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "plan": plan_hash(file),
        "world_size": dist.get_world_size() if dist.is_initialized() else 1,
        "model fingerprint": config_fingerprint(config),
        "activations": file.deployment.activations,
        "torch": torch.__version__.split("+")[0],
    }


def _sharded(
    checkpoint: str | Path,
    file: StrategyFile,
    adapter: Adapter,
    groups: Groups,
    device: torch.device,
    attn_implementation: str | None,
) -> nn.Module:
    """The model with this rank's parameters alone, as transformers' loader gives it."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    if groups.tp.rank != 0:
        logging.disable_progress_bar()
    options: dict[str, Any] = {"dtype": _DTYPES[file.deployment.activations]}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    if groups.tp.size > 1:
        from transformers.distributed import DistributedConfig

        mesh = attention_mesh(groups, device.type) if groups.parallelism.attn_dp > 1 else None
        register_styles(mesh)
        with torch.device("meta"):
            outline = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(checkpoint))
        plan = shard_plan(adapter, outline, groups)
        options["distributed_config"] = DistributedConfig(tp_size=groups.tp.size, tp_plan=plan)
    model: nn.Module = AutoModelForCausalLM.from_pretrained(checkpoint, **options).eval()
    to_local(model)
    return model.to(device)


def _take_over(model: nn.Module, executor: Executor, adapter: Adapter) -> None:
    """Everything that the loader does not do: KV heads, biases, latents, experts, vocabulary; then the forwards."""
    groups, base = executor.groups, model.model
    config: Any = model.config
    attn = groups.attn_tp
    for index, layer in enumerate(base.layers):  # type: ignore[union-attr, arg-type]
        attention = layer.self_attn
        if adapter.kv and config.num_key_value_heads % attn.size:
            heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
            cut_kv_heads(attention, adapter.kv, kv_heads, attn.rank, attn.size, heads)
        for name in adapter.row:
            keep_bias_once(attention.get_submodule(name), attn.rank)
        if adapter.latent and getattr(attention, "q_a_proj", None) is not None:
            executor.latents[index] = Latents(attention, adapter.latent)
        _prepare_mlp(layer.mlp, executor, index)
    _shard_vocabulary(model, executor)
    executor.attach(model, next(model.parameters()).element_size())


def _prepare_mlp(mlp: Any, executor: Executor, index: int) -> None:
    groups = executor.groups
    shape = executor.strategy.layer_shape(index)
    if not shape.all_to_all and hasattr(mlp, "down_proj"):
        keep_bias_once(mlp.down_proj, groups.tp.rank)
    if not hasattr(mlp, "experts") or groups.parallelism.ep == 1:
        return
    count = mlp.experts.num_experts = mlp.experts.down_proj.shape[0]
    if shape.all_to_all:
        mlp.experts = AllToAllExperts(mlp.experts, count, groups.tp, executor.backend)
    else:
        mlp.experts = LocalExperts(mlp.experts, groups.tp.rank * count, count)


def _shard_vocabulary(model: Any, executor: Executor) -> None:
    groups, base = executor.groups, model.model
    vocab_size = model.config.get_text_config().vocab_size
    embedding, head = base.embed_tokens.weight, model.lm_head.weight
    attn, tp = groups.attn_tp, groups.tp
    first, last = vocabulary_slice(vocab_size, attn.rank, attn.size)
    base.embed_tokens = VocabParallelEmbedding(local_rows(embedding, first, last, max(1, last - first)), first, last)
    first, last = vocabulary_slice(vocab_size, tp.rank, tp.size)
    weight = local_rows(head, first, last, -(-vocab_size // tp.size))
    model.lm_head = VocabParallelHead(weight, vocab_size, tp, executor)
    base.norm = FinalNorm(base.norm, executor)
