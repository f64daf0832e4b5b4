"""What a server says to a prompt, token by token, how far two servers are apart, and whether that is within bounds."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from checkpoints import VOCABULARY
from running import Server

NEW = 24
PROMPTS = (3, 17, 130, 700, 2500)
BOUNDS = {"bitwise": 0.0, "reordered": 0.08, "quantized": 0.25}
"""Largest error of a logprob, over the largest logprob: as `commplan check` has it for bf16."""
MOST = 0.01
"""Error of a prefill's logprob, over the largest, within which nine tenths have to be.

With every token at the experts that it had, no logprob was off by more than 0.006, with INT8 0.011, and fewer than a
tenth of the tokens went to others (`control.py`). A decode's largest logprob is that of likely tokens, a fifth of a
prefill's, so that the bound itself is as tight, and of a few dozens the tenth is two or three tokens.
"""
SHARE = 0.03
"""Logprobs that may be beyond the bound where tokens are routed to experts: two nearly equal scores change places.

In `control.py` 3.1 to 8.9 % of the tokens changed experts, depending on model and rounding; beyond the bound were such
tokens only, 1.7 % at most.
"""


def prompt_of(length: int) -> list[int]:
    """Its tokens, the same for everyone."""
    rng = random.Random(length)
    return [rng.randrange(1, VOCABULARY) for _ in range(length)]


def answer_of(server: Server, length: int) -> dict[str, Any]:
    """Tokens and logprobs of a prompt and of what follows."""
    _, answer = server.generate([prompt_of(length)], NEW, 120, return_logprob=True, logprob_start_len=0)
    one = answer[0] if isinstance(answer, list) else answer
    about = one["meta_info"]
    return {
        "tokens": one["output_ids"],
        "prefill": [row[0] for row in about["input_token_logprobs"][1:]] + [about["output_token_logprobs"][0][0]],
        "decode": [row[0] for row in about["output_token_logprobs"][1:]],
    }


def compared(wanted: list[dict[str, Any]], found: list[dict[str, Any]], bound: float) -> Iterator[dict[str, Any]]:
    """Of prefill and decode: the largest error of a logprob, the largest logprob, and how many were compared.

    Also the errors that half and nine tenths do not exceed, and how many exceed the bound times the largest logprob.
    What is no number is infinitely far off. A decode is compared up to the first token that differs: what follows
    answers another text.
    """
    for kind in ("prefill", "decode"):
        errors, sizes, same = [], [], 0
        for want, got in zip(wanted, found, strict=True):
            pairs = list(zip(want[kind], got[kind], strict=True))
            if kind == "decode":
                pairs = pairs[: _agreeing(want["tokens"], got["tokens"]) - 1 if pairs else 0]
            errors += [abs(a - b) if math.isfinite(a - b) else math.inf for a, b in pairs]
            sizes += [abs(a) for a, _ in pairs if math.isfinite(a)]
            same += want["tokens"] == got["tokens"]
        largest = max(sizes, default=0.0)
        beyond = sum(error > bound * largest for error in errors)
        yield {
            "kind": kind,
            "compared": len(errors),
            "error": max(errors, default=0.0),
            "middle": statistics.median(errors) if errors else 0.0,
            "nine_tenths": sorted(errors)[math.ceil(0.9 * len(errors)) - 1] if errors else 0.0,
            "beyond": beyond,
            "share": beyond / len(errors) if errors else 0.0,
            "largest": largest,
            "same_texts": f"{same} of {len(wanted)}",
        }


def _agreeing(wanted: list[int], found: list[int]) -> int:
    """Tokens in which two texts begin alike; at least one, since the first comes of the prefill."""
    alike = next((i for i, (a, b) in enumerate(zip(wanted, found, strict=False)) if a != b), len(wanted))
    return max(1, alike)


def verdict(row: Mapping[str, Any], bound: float, routed: bool) -> str:
    """Are the errors within the bound? `routed`: of a family whose tokens go to experts of their own."""
    if not row["compared"]:
        return "nothing to compare"
    wanted = "equal bit by bit" if bound == 0 else f"within {bound:g} of the largest"
    within = row["error"] <= bound * row["largest"]
    if bound == 0:
        return wanted if within else f"NOT {wanted}"
    most = row["kind"] != "prefill" or "nine_tenths" not in row or row["nine_tenths"] <= MOST * row["largest"]
    if within and most:
        return wanted
    if not most:
        return f"NOT nine tenths within {MOST:g} of the largest" + ("" if within else f", NOT all {wanted}")
    if not routed:
        return f"NOT {wanted}"
    if "beyond" not in row:
        return f"NOT {wanted}, how many are not was not counted"
    of = f"{row['beyond']} of {row['compared']} tokens"
    if row["share"] > SHARE:
        return f"NOT {wanted}: {of} are not, where {SHARE:.0%} may go to other experts"
    return f"{wanted} but for {of}, whose experts may differ"
