"""Runs on a rank: a checkpoint under transformers' own tensor parallelism, beside the same under a plan."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, DynamicCache

from commplan.runtime import Executor
from commplan.runtime.ranks.groups import temporary_groups

from ..parity import DECODE_STEPS, Named, forward, sharded
from ..prompts import SHAPES, requests


class Compared(NamedTuple):
    """Largest difference of logits over all shapes, and how many of the peer's parameters are sharded."""

    error: float
    sharded_parameters: int


def compared(checkpoint: str, plan: Named) -> Compared:
    """Prefills and decode steps of every shape under both."""
    executor = sharded(checkpoint, plan.file)  # which stays, with its groups; those of the peer do not
    with temporary_groups():
        peer = AutoModelForCausalLM.from_pretrained(checkpoint, tp_plan="auto").eval()
        worst = max(_largest_difference(peer, executor, batch, seq) for batch, seq in SHAPES)
        return Compared(worst, sum(isinstance(parameter, DTensor) for parameter in peer.parameters()))


def _largest_difference(peer: Any, executor: Executor, batch: int, seq: int) -> float:
    ids, worst = requests()[:batch], 0.0
    caches = DynamicCache(config=peer.config), DynamicCache(config=executor.model.config)
    for step in range(1 + DECODE_STEPS):
        piece = ids[:, :seq] if step == 0 else ids[:, seq + step - 1 : seq + step]
        theirs = _logits(peer, piece, caches[0])
        ours = forward(executor, "decode" if step else "prefill", piece, caches[1])
        assert ours.shape == theirs.shape
        worst = max(worst, (ours - theirs).abs().nan_to_num(float("inf")).max().item())
    return worst


def _logits(peer: Any, ids: torch.Tensor, cache: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = peer(ids, past_key_values=cache, use_cache=True).logits
    return logits.full_tensor() if isinstance(logits, DTensor) else logits
