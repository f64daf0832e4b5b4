"""What a server says to a prompt, token by token, and how far two servers are apart."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from typing import Any

from checkpoints import VOCABULARY
from running import Server

NEW = 24


def answer_of(server: Server, length: int) -> dict[str, Any]:
    """Tokens and logprobs of a prompt and of what follows."""
    rng = random.Random(length)
    prompt = [rng.randrange(1, VOCABULARY) for _ in range(length)]
    _, answer = server.generate([prompt], NEW, 120, return_logprob=True, logprob_start_len=0)
    one = answer[0] if isinstance(answer, list) else answer
    about = one["meta_info"]
    return {
        "tokens": one["output_ids"],
        "prefill": [row[0] for row in about["input_token_logprobs"][1:]] + [about["output_token_logprobs"][0][0]],
        "decode": [row[0] for row in about["output_token_logprobs"][1:]],
    }


def compared(wanted: list[dict[str, Any]], found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Of prefill and decode: the largest error of a logprob, the largest logprob, and how many were compared.

    A decode is compared up to the first token that differs: what follows answers another text.
    """
    for kind in ("prefill", "decode"):
        errors, sizes, same = [], [], 0
        for want, got in zip(wanted, found, strict=True):
            pairs = list(zip(want[kind], got[kind], strict=True))
            if kind == "decode":
                pairs = pairs[: _agreeing(want["tokens"], got["tokens"]) - 1 if pairs else 0]
            errors += [abs(a - b) for a, b in pairs]
            sizes += [abs(a) for a, _ in pairs]
            same += want["tokens"] == got["tokens"]
        yield {
            "kind": kind,
            "compared": len(errors),
            "error": max(errors, default=0.0),
            "middle": statistics.median(errors) if errors else 0.0,
            "largest": max(sizes, default=0.0),
            "same_texts": f"{same} of {len(wanted)}",
        }


def _agreeing(wanted: list[int], found: list[int]) -> int:
    """Tokens in which two texts begin alike; at least one, since the first comes of the prefill."""
    alike = next((i for i, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b), len(wanted))
    return max(1, alike)
