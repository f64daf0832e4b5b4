"""Greedy generation on one rank."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .errors import RefusedError


def generate_rank(
    checkpoint: str, strategy: str, prompt: str | None, ids: list[int] | None, max_new_tokens: int
) -> tuple[list[int], str | None, list[tuple[str, str, int]]]:
    """(all token ids, text if there is a tokenizer, executed ops as (mode, op, calls))."""
    import torch

    from .loading import load_model

    executor = load_model(checkpoint, strategy)
    tokenizer = _tokenizer(checkpoint) if prompt is not None else None
    device = next(executor.model.parameters()).device
    given = tokenizer(prompt)["input_ids"] if tokenizer is not None else ids
    vocab = executor.model.config.get_text_config().vocab_size
    if not given or any(not 0 <= token < vocab for token in given):
        raise RefusedError(f"at least one token id from 0 to {vocab - 1} is needed", field="--tokens", value=str(given))
    out = executor.generate(
        torch.tensor([given], device=device), max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=0
    )
    tokens: list[int] = out[0].tolist()
    ran: Counter[tuple[str, str]] = Counter()
    for count in executor.counters.executed():
        ran[count.mode, f"{count.place.boundary} {count.place.op}"] += count.calls
    text = tokenizer.decode(tokens) if tokenizer is not None else None
    return tokens, text, [(mode, op, calls) for (mode, op), calls in ran.items()]


def _tokenizer(checkpoint: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise RefusedError(f"the checkpoint has no tokenizer ({first}); use --tokens", field="--prompt") from None
