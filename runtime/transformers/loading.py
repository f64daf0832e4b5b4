"""From a checkpoint directory and a strategy file to an executor, on every rank alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from commplan.planner.strategy.file import StrategyFile, config_fingerprint, plan_hash
from commplan.planner.strategy.file import load as load_strategy

from ..backends import load_backend
from ..errors import RefusedError
from ..kernels.peer_impls import check_peer_limits
from ..ranks.agreement import exchange_over, together
from ..ranks.groups import Groups, given_back_if_refused, make_groups, temporary_groups
from ..ranks.rendezvous import meet
from .checkpoint_fit import DTYPES, check_fit, check_world
from .executor import Executor
from .experts import AllToAllExperts, LocalExperts
from .head_norms import SpanningNorms
from .latent import Latents
from .models import Adapter
from .outline import outline_of
from .sharding import (
    attention_mesh,
    count_own_heads,
    cut_kv_heads,
    cut_linear_attention,
    keep_bias_once,
    keep_expert_biases_once,
    local_rows,
    register_styles,
    shard_plan,
    to_local,
    vocabulary_slice,
)
from .streams import take_over_head
from .vocabulary import FinalNorm, VocabParallelEmbedding, VocabParallelHead
from .weights import weights_digest

_LONGEST_REASON = 500  # characters of what transformers says


@given_back_if_refused()
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
    ranks = meet(timeout_s)
    with together(ranks.exchange) as values:
        file = strategy if isinstance(strategy, StrategyFile) else load_strategy(strategy)
        config, adapter = check_fit(file, checkpoint)
        check_world(file, ranks.size)
        backend = load_backend(file.hardware.backend)
        check_peer_limits(file, backend.name, backend.peer_limits)
        device = backend.device(int(os.environ.get("LOCAL_RANK", "0")))
        values.update(_what_must_agree(file, config, agree), weights=weights_digest(checkpoint))
    ranks.join(backend.torch_name, device, timeout_s)
    groups = make_groups(file.parallelism, timeout_s, ranks.control)
    mesh = attention_mesh(groups, device.type) if file.parallelism.attn_dp > 1 else None
    with together(exchange_over(groups.control)), temporary_groups():
        model = _sharded(checkpoint, file, adapter, groups, device, mesh, attn_implementation)
        executor = Executor(file, groups, backend, agree=agree)
        _take_over(model, executor, adapter)
    executor.build()
    return executor


def _what_must_agree(file: StrategyFile, config: dict[str, Any], agree: bool) -> dict[str, str]:
    return {
        "plan": plan_hash(file),
        "model fingerprint": str(config_fingerprint(config)),
        "activations": file.deployment.activations,
        "agree": str(agree),
        "torch": torch.__version__.split("+")[0],
        "transformers": version("transformers"),
    }


def _sharded(
    checkpoint: str | Path,
    file: StrategyFile,
    adapter: Adapter,
    groups: Groups,
    device: torch.device,
    mesh: DeviceMesh | None,
    attn_implementation: str | None,
) -> nn.Module:
    """The model with this rank's parameters alone, as transformers' loader gives it."""
    from transformers.utils import logging

    if groups.tp.rank != 0:
        logging.disable_progress_bar()
    config, outline = outline_of(checkpoint)
    options: dict[str, Any] = {"config": config, "dtype": getattr(torch, DTYPES[file.deployment.activations])}
    if attn_implementation is not None:
        options["attn_implementation"] = attn_implementation
    if groups.tp.size > 1:
        from transformers.distributed import DistributedConfig

        register_styles(mesh)
        plan = shard_plan(adapter, outline, groups)
        options["distributed_config"] = DistributedConfig(tp_size=groups.tp.size, tp_plan=plan)
    model = _with_all_weights(checkpoint, options)
    to_local(model)
    return model.to(device)


def whole_model(checkpoint: str | Path) -> Any:
    """The model of a checkpoint in one process, in fp32; raises RefusedError where it cannot be loaded."""
    config, _ = outline_of(checkpoint)
    return _with_all_weights(checkpoint, {"config": config, "dtype": torch.float32})


def _with_all_weights(checkpoint: str | Path, options: dict[str, Any]) -> nn.Module:
    """from_pretrained, which alone would fill missing weights with random ones and warn."""
    from transformers import AutoModelForCausalLM

    with _refusing(checkpoint):
        loaded: Any = AutoModelForCausalLM.from_pretrained(checkpoint, output_loading_info=True, **options)
    model, found = loaded
    missing = sorted(found["missing_keys"])
    if missing:
        names = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise RefusedError(f"has no {names}; download or save the checkpoint again", file=str(checkpoint))
    whole: nn.Module = model.eval()
    return whole


@contextmanager
def _refusing(checkpoint: str | Path) -> Iterator[None]:
    """What transformers raises over a spoiled config or weights file may be anything at all: it is a refusal."""
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())[:_LONGEST_REASON]
        reason = f"cannot be loaded: {type(error).__name__}: {said}; download or save the checkpoint again"
        raise RefusedError(reason, file=str(checkpoint)) from error


def _take_over(model: nn.Module, executor: Executor, adapter: Adapter) -> None:
    """Everything that the loader does not do: KV heads, biases, latents, experts, vocabulary; then the forwards."""
    groups, base = executor.groups, model.model
    config: Any = model.config
    attn = groups.attn_tp
    layers: Any = base.layers  # type: ignore[union-attr]
    _check_stamp(executor, "moe_layers", {n for n, layer in enumerate(layers) if hasattr(layer.mlp, "experts")})
    _check_stamp(executor, "residual_streams", getattr(config, "hc_mult", 1))
    for index, layer in enumerate(layers):
        _prepare_mlp(layer.mlp, executor, index)
        if hasattr(layer, "attn_hc"):
            executor.now.connections[index] = (layer.attn_hc, layer.ffn_hc)
        if not hasattr(layer, "self_attn"):
            assert adapter.linear is not None
            cut_linear_attention(layer.linear_attn, adapter.linear, attn.rank, attn.size)
            continue
        attention = layer.self_attn
        if adapter.kv and config.num_key_value_heads % attn.size:
            heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
            cut_kv_heads(attention, adapter.kv, kv_heads, attn.rank, attn.size, heads)
        count_own_heads(attention, adapter.counts, attn.size)
        for name in adapter.row:
            keep_bias_once(attention.get_submodule(name), attn.rank)
        if adapter.latent and getattr(attention, "q_a_proj", None) is not None:
            latents = executor.now.latents[index] = Latents(attention, adapter.latent)
            if latents.complete:
                _check_stamp(executor, "latent_width", latents.width)
        if adapter.norms and attn.size > 1:
            SpanningNorms(attention, adapter.norms, attn, executor.backend)
    _shard_vocabulary(model, executor)
    executor.attach(model)


def _check_stamp(executor: Executor, field: str, found: object) -> None:
    """What an edited file says of the model must still be true of it."""
    written = getattr(executor.strategy.model, field)
    if written != found:
        raise RefusedError(f"the checkpoint has {found}; plan again", field=f"model.{field}", value=str(written))


def _prepare_mlp(mlp: Any, executor: Executor, index: int) -> None:
    groups = executor.groups
    shape = executor.strategy.layer_shape(index)
    if not shape.all_to_all and hasattr(mlp, "down_proj"):
        keep_bias_once(mlp.down_proj, groups.tp.rank)
    if not hasattr(mlp, "experts"):
        return
    if groups.parallelism.ep == 1:
        keep_expert_biases_once(mlp.experts, groups.tp.rank)
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
    model.lm_head = VocabParallelHead(weight, vocab_size, tp, executor.now)
    base.norm = FinalNorm(base.norm, executor.now, take_over_head(base))
