"""The prompts of the tests, and how far each top-k selection that they cause is from another outcome.

All forwards of the tests are pieces of one table of requests: (B, S) is the first S tokens of B requests, and decode
steps go on with the tokens that follow. Causal models then give the logits of every piece in one forward of the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from .transformers.tiny_models import VOCAB_SIZE

NUM_REQUESTS, LENGTH = 5, 21
LEAST_MARGIN = 1e-4
SHAPES = ((1, 1), (1, 2), (1, 7), (2, 7), (3, 5), (1, 16), (1, 17))


def requests() -> torch.Tensor:
    """[NUM_REQUESTS, LENGTH] token ids."""
    generator = torch.Generator().manual_seed(20)
    return torch.randint(0, VOCAB_SIZE, (NUM_REQUESTS, LENGTH), generator=generator)


class _TopKMargins(TorchFunctionMode):
    """Notes, for every top-k that runs, the smallest distance between the last value taken and the first one left."""

    def __init__(self) -> None:
        super().__init__()
        self.margins: list[float] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (torch.topk, torch.Tensor.topk):
            values, k = args[0], args[1] if len(args) > 1 else kwargs["k"]
            ordered = values.detach().double().sort(dim=kwargs.get("dim", -1), descending=True).values
            if k < ordered.shape[-1]:
                taken, left = ordered[..., k - 1], ordered[..., k]
                gaps = (taken - left)[taken.isfinite()]  # -inf is masked: no choice between such
                self.margins += [gaps.min().item()] if gaps.numel() else []
        return function(*args, **kwargs)


@contextmanager
def recorded_margins() -> Iterator[list[float]]:
    """The margins of all top-k selections inside."""
    with _TopKMargins() as recorder:
        yield recorder.margins
