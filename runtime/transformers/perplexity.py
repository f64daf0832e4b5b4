"""`commplan check --perplexity`: the perplexity of a text under a plan on real ranks, beside that of one process."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from commplan.planner.strategy.file import StrategyFile, load

from ..errors import RefusedError

MODE = "prefill"


@dataclass(frozen=True)
class PerplexityResult:
    """`planned` and `exact` are perplexities; `rise` is the relative difference, `predicted` what the file says of it.

    tokens  of the text, `window` of them in a forward
    budget  that the plan was made under
    """

    exact: float
    planned: float
    tokens: int
    window: int
    predicted: float | None
    budget: float | None

    @property
    def rise(self) -> float:
        """Relative, as measured."""
        return self.planned / self.exact - 1

    @property
    def passed(self) -> bool:
        """Within the budget, where there is one."""
        return math.isfinite(self.planned) and (self.budget is None or self.rise <= self.budget)


def window_of(strategy: StrategyFile, most: int) -> int:
    """Tokens of a forward: as many as the plan has a prefill for, `most` at most; raises RefusedError."""
    if MODE not in strategy.modes:
        raise RefusedError("the plan has no prefill, by which a text is read", field=f"modes.{MODE}")
    if strategy.parallelism.attn_dp > 1:
        raise RefusedError(
            "a text is read by one group: perplexity is not measured with attention DP", field="parallelism.attn_dp"
        )
    ranges = strategy.modes[MODE]
    window = min(most, ranges[-1].last)
    if window < max(2, ranges[0].first):
        first = max(2, ranges[0].first)
        raise RefusedError(f"forwards of at least {first} tokens are planned", field="--max-tokens", value=most)
    return window


def perplexity_rank(checkpoint: str, strategy_path: str, windows: list[list[int]]) -> PerplexityResult | None:
    """Read the windows under the plan on every rank, and on rank 0 by the whole model as well; None on the others."""
    import torch

    from .loading import load_model

    strategy = load(strategy_path)
    executor = load_model(checkpoint, strategy)
    weights = next(executor.model.parameters())
    ids = torch.tensor(windows, device=weights.device)
    with executor.forward(MODE):
        planned = mean_loss(executor.model, ids)
    executor.check_peers()
    if executor.groups.tp.rank != 0:
        return None
    exact = mean_loss(_reference(checkpoint, weights), ids)
    predicted = strategy.range_of(MODE, ids.shape[1]).predicted
    return PerplexityResult(
        math.exp(exact),
        math.exp(planned) if math.isfinite(planned) else math.inf,
        ids.numel(),
        ids.shape[1],
        None if predicted is None else predicted.perplexity_rise,
        None if predicted is None else predicted.perplexity_budget,
    )


def _reference(checkpoint: str, weights: Any) -> Any:
    from transformers import AutoModelForCausalLM

    from .outline import outline_of

    config, _ = outline_of(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, config=config, dtype=weights.dtype)
    return model.eval().to(weights.device)


def mean_loss(model: Any, ids_WS: Any) -> float:
    """The mean loss of a token, one window a forward."""
    import torch

    total = 0.0
    with torch.no_grad():
        for row in ids_WS:
            logits = model(row.unsqueeze(0), use_cache=False).logits[0, :-1].float()
            total += torch.nn.functional.cross_entropy(logits, row[1:], reduction="none").double().sum().item()
    count: int = ids_WS.shape[0] * (ids_WS.shape[1] - 1)
    return total / count
