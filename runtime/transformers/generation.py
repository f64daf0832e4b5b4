"""Greedy generation on one rank, and the tokenizer before it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ..errors import RefusedError

# Where tokenizers keep their vocabulary.
_VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model", "*.tiktoken", "tekken.json")


def generate_rank(
    checkpoint: str, strategy: str, ids: list[int], max_new_tokens: int
) -> tuple[list[int], list[tuple[str, str, int]]]:
    """(all token ids, executed ops as (mode, op, calls))."""
    import torch

    from .loading import load_model

    executor = load_model(checkpoint, strategy)
    device = next(executor.model.parameters()).device
    out = executor.generate(
        torch.tensor([ids], device=device), max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=0
    )
    tokens: list[int] = out[0].tolist()
    ran: Counter[tuple[str, str]] = Counter()
    for count in executor.counters.executed():
        ran[count.mode, f"{count.place.boundary} {count.place.op}"] += count.calls
    return tokens, [(mode, op, calls) for (mode, op), calls in ran.items()]


def load_tokenizer(checkpoint: str) -> Any:
    """The tokenizer of a checkpoint directory; RefusedError where it has none that can be read."""
    if not any(path for pattern in _VOCABULARIES for path in Path(checkpoint).glob(pattern)):
        raise RefusedError(  # transformers would make an empty one
            "the checkpoint has no tokenizer (no tokenizer.json or the like); use --tokens",
            field="--prompt",
            value=checkpoint,
        )
    from transformers import AutoTokenizer

    from ..ranks.agreement import first_line

    try:
        return AutoTokenizer.from_pretrained(checkpoint, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers in Rust raise Exception itself
        reason = f"the checkpoint has no tokenizer that can be read ({first_line(error)}); use --tokens"
        raise RefusedError(reason, field="--prompt", value=checkpoint) from None


def encoded(tokenizer: Any, prompt: str) -> list[int]:
    """The token ids of a prompt."""
    ids: list[int] = tokenizer(prompt)["input_ids"]
    return ids
