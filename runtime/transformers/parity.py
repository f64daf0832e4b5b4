"""`commplan check`: does the sharded model under the plan compute what one process computes, by the planned ops?

Every rank runs the same random prompts through the executor and through the unsharded model, at token counts that hit
both ends of every range, and compares logits and counters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from commplan.planner.strategy.file import Numerics, StrategyFile, load, numerics_rank

MAX_TOKENS = 512


@dataclass(frozen=True)
class ModeResult:
    """What was seen of one mode. `largest` is the largest logit of the reference, to which the error relates.

    `max_error` is infinite where a logit of either side is not finite. `skipped` are the ranges [first, last] that lie
    beyond the largest token count that was run.
    """

    mode: str
    forwards: int
    token_counts: list[int]
    max_error: float
    largest: float
    numerics: Numerics
    bound: float
    miscounted: list[str]
    skipped: list[tuple[int, int]]

    @property
    def passed(self) -> bool:
        """Within the bound, and every op counted as planned."""
        return self.max_error <= self.bound and not self.miscounted


def token_counts(strategy: StrategyFile, mode: str, most: int = MAX_TOKENS) -> list[int]:
    """Both ends of every range, its second count, and an odd one at its middle; none above `most`."""
    counts = set()
    for plan in strategy.modes[mode]:
        last = min(plan.last, most)
        counts |= {
            c for c in (plan.first, plan.first + 1, (plan.first + last) // 2 | 1, last) if plan.first <= c <= last
        }
    return sorted(counts)


def mode_numerics(strategy: StrategyFile, mode: str) -> Numerics:
    """The loosest class among the ops of a mode."""
    from commplan.planner.strategy.file import numerics_class, places

    classes = {
        numerics_class(boundary, op, strategy.parallelism)
        for plan in strategy.modes[mode]
        for _, boundary, op in places(plan)
    }
    return max(classes, key=numerics_rank)


def check_rank(checkpoint: str, strategy_path: str, seed: int, most: int = MAX_TOKENS) -> list[ModeResult]:
    """Run the comparison on this rank; the plan's own numerics class sets the bound."""
    from transformers import AutoModelForCausalLM

    from ..bound.counts import expected_calls
    from .loading import load_model
    from .outline import outline_of

    strategy = load(strategy_path)
    executor = load_model(checkpoint, strategy)
    dtype = next(executor.model.parameters()).dtype
    device = next(executor.model.parameters()).device
    config, _ = outline_of(checkpoint)
    reference = AutoModelForCausalLM.from_pretrained(checkpoint, config=config, dtype=dtype).eval().to(device)
    results = []
    for mode in strategy.modes:
        executor.counters.reset()
        executor.forwards.clear()
        worst = largest = 0.0
        counts = token_counts(strategy, mode, most)
        for tokens in counts:
            error, size = _compare(executor, reference, mode, tokens, seed)
            worst, largest = max(worst, error), max(largest, size)
        executed = executor.counters.calls()
        expected = expected_calls(strategy, executor.forwards)
        wrong = [
            f"{key}: ran {executed.get(key, 0)} times, planned {expected.get(key, 0)}"
            for key in sorted({*executed, *expected}, key=str)
            if executed.get(key, 0) != expected.get(key, 0)
        ]
        numerics = mode_numerics(strategy, mode)
        bound = _bound(numerics, dtype, largest)
        skipped = [(plan.first, plan.last) for plan in strategy.modes[mode] if plan.first > most]
        forwards = len(executor.forwards)
        results.append(ModeResult(mode, forwards, counts, worst, largest, numerics, bound, wrong, skipped))
    return results


def _compare(executor: Any, reference: Any, mode: str, tokens: int, seed: int) -> tuple[float, float]:
    """(largest logit error, largest logit) of one forward of `tokens` rows in a mode."""
    import torch

    p = executor.groups.parallelism
    own = -(-tokens // p.attn_dp) if p.attn_dp > 1 else tokens
    if p.attn_dp > 1:
        own = own // p.attn_tp * p.attn_tp or own
    generator = torch.Generator().manual_seed(_mixed(seed, tokens, executor.groups.attn_dp.rank))
    vocab = executor.model.config.get_text_config().vocab_size
    device = next(executor.model.parameters()).device
    requests, rows = (own, 1) if mode == "decode" else (1, own)
    cached = _prompt(executor, reference, mode, requests, vocab, generator, device)
    ids = torch.randint(0, vocab, (requests, rows), generator=generator).to(device)
    with torch.no_grad(), executor.forward(mode):
        got = executor.model(ids, past_key_values=cached[0], use_cache=True).logits.float()
    with torch.no_grad():
        want = reference(ids, past_key_values=cached[1], use_cache=True).logits.float()
    if not (got.isfinite().all() and want.isfinite().all()):
        return math.inf, 0.0
    return (got - want).abs().max().item(), want.abs().max().item()


def _mixed(seed: int, tokens: int, group: int) -> int:
    """A seed for each token count and DP group; torch takes 64 bits."""
    return (seed * 1_000_003 + tokens * 31 + group) % 2**64


def _prompt(
    executor: Any, reference: Any, mode: str, requests: int, vocab: int, generator: Any, device: Any
) -> tuple[Any, Any]:
    """Caches of both models after a prompt of one token per request: what a decode step goes on from."""
    import torch

    strategy = executor.strategy
    total = requests * executor.groups.parallelism.attn_dp
    planned = any(plan.first <= total <= plan.last for plan in strategy.modes.get("prefill", ()))
    if mode != "decode" or not planned:
        return None, None
    ids = torch.randint(0, vocab, (requests, 1), generator=generator).to(device)
    with torch.no_grad(), executor.forward("prefill"):
        ours = executor.model(ids, use_cache=True).past_key_values
    with torch.no_grad():
        theirs = reference(ids, use_cache=True).past_key_values
    return ours, theirs


def _bound(numerics: Numerics, dtype: Any, largest: float) -> float:
    """Largest logit error that a numerics class allows, relative to the largest logit of the reference."""
    import torch

    relative = {torch.float32: 1e-4, torch.bfloat16: 0.08, torch.float16: 0.02}[dtype]
    if numerics == "quantized":
        relative = max(relative, 0.25)
    return relative * largest
