"""Runs on a rank: the ways in which callers use a transformers model, under a plan. Each returns its largest error."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache, StaticCache

from commplan.runtime import Executor
from commplan.runtime.errors import RefusedError

from ..cases import Share, split
from ..parity import Named, forward, mine, reference, sharded, single_process
from ..prompts import requests

STEPS = 2


def error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference; infinite for another shape or NaN."""
    if got.shape != wanted.shape or got.isnan().any():
        return float("inf")
    return (got - wanted).abs().max().item() if got.numel() else 0.0


def _share(executor: Executor) -> Share:
    return mine(executor, split(3, 5, executor.groups.parallelism.attn_dp))


def last_logits_alone(executor: Executor, checkpoint: str) -> float:
    """`logits_to_keep=1`, as generate() asks for."""
    first, batch, seq = _share(executor)
    ids = requests()[first : first + batch]
    got = forward(executor, "prefill", ids[:, :seq], logits_to_keep=1)
    return error(got, reference(checkpoint)[first : first + batch, seq - 1 : seq])


def embeddings_given(executor: Executor, checkpoint: str) -> float:
    """`inputs_embeds` instead of token ids."""
    first, batch, seq = _share(executor)
    ids = requests()[first : first + batch, :seq]
    embeds = single_process(checkpoint).get_input_embeddings()(ids)
    with torch.no_grad(), executor.forward("prefill"):
        got = executor.model(inputs_embeds=embeds, use_cache=False).logits
    return error(got, reference(checkpoint)[first : first + batch, :seq])


def static_cache(executor: Executor, checkpoint: str) -> float:
    """A cache of fixed size."""
    first, batch, seq = _share(executor)
    cache = StaticCache(config=executor.model.config, max_cache_len=seq + STEPS)
    return _cached(executor, checkpoint, cache, first, batch, seq)


def longer_second_prompt(executor: Executor, checkpoint: str) -> float:
    """A prefill that goes on from a cache, in two chunks of unequal length."""
    first, batch, seq = _share(executor)
    ids, wanted = requests()[first : first + batch], reference(checkpoint)[first : first + batch]
    cache = DynamicCache(config=executor.model.config)
    got = [forward(executor, "prefill", ids[:, :2], cache), forward(executor, "prefill", ids[:, 2 : 2 + seq], cache)]
    return error(torch.cat(got, 1), wanted[:, : 2 + seq])


def left_padding(executor: Executor, checkpoint: str) -> float:
    """Requests of unequal length in one batch: what stands before them is masked."""
    first, batch, seq = _share(executor)
    ids, wanted = requests()[first : first + batch], reference(checkpoint)[first : first + batch]
    padding = [row % 3 for row in range(batch)]
    padded, mask = torch.zeros(batch, seq + 2, dtype=torch.int64), torch.zeros(batch, seq + 2, dtype=torch.int64)
    lengths = [seq + 2 - pad for pad in padding]
    for row, (pad, length) in enumerate(zip(padding, lengths, strict=True)):
        padded[row, pad:], mask[row, pad:] = ids[row, :length], 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    got = forward(executor, "prefill", padded, attention_mask=mask, position_ids=positions)
    return max(error(got[r, padding[r] :], wanted[r, : lengths[r]]) for r in range(batch))


def _cached(executor: Executor, checkpoint: str, cache: Any, first: int, batch: int, seq: int) -> float:
    ids, wanted = requests()[first : first + batch], reference(checkpoint)[first : first + batch]
    got = [forward(executor, "prefill", ids[:, :seq], cache)]
    got += [forward(executor, "decode", ids[:, seq + step : seq + step + 1], cache) for step in range(STEPS)]
    return error(torch.cat(got, 1), wanted[:, : seq + STEPS])


VARIANTS = {
    f.__name__: f for f in (last_logits_alone, embeddings_given, static_cache, longer_second_prompt, left_padding)
}


def errors(checkpoint: str, plans: list[Named], without: tuple[str, ...] = ()) -> dict[tuple[str, str], float]:
    """The error of every variant under every plan; `without` those that the model itself does not have."""
    found = {}
    for plan in plans:
        executor = sharded(checkpoint, plan.file)
        for name, variant in VARIANTS.items():
            if name in without:
                continue
            try:
                found[plan.name, name] = variant(executor, checkpoint)
            except Exception as stopped:
                raise RuntimeError(f"{plan.name}, {name}") from stopped
    return found


def refusal_of_embeddings(checkpoint: str, plan: Named) -> str:
    """What is said where `inputs_embeds` stand for token ids."""
    executor = sharded(checkpoint, plan.file)
    try:
        embeddings_given(executor, checkpoint)
    except RefusedError as refused:
        return str(refused)
    return "went through"


def head_in_rows(checkpoint: str, plan: Named) -> tuple[int, int]:
    """Rows that head_in sent from this rank for the last logits of three requests of five tokens, and for all."""
    executor = sharded(checkpoint, plan.file)
    sent = []
    for keep in (1, 0):
        executor.counters.reset()
        forward(executor, "prefill", requests()[:3, :5], logits_to_keep=keep)
        sent.append(sum(c.rows for c in executor.counters.executed() if c.place.boundary == "head_in"))
    return sent[0], sent[1]
