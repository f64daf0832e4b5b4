"""What a rank computes for test_on_ranks.py."""

from __future__ import annotations


def logits_rank(checkpoint: str, strategy: str, ids: list[list[int]]):
    """The logits of a prefill under a plan."""
    import torch

    from commplan.runtime.transformers.loading import load_model

    executor = load_model(checkpoint, strategy)
    with torch.no_grad(), executor.forward("prefill"):
        logits = executor.model(torch.tensor(ids), use_cache=False).logits.tolist()
    executor.close()
    return logits
