"""The loss of a model on token ids, exactly or with some sums quantised; forwards may start at a layer.

Shapes: W windows of S tokens, of which each predicts the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import RefusedError
from .emulated_ranks import EmulatedRanks, Sum

_LOGIT_ROWS = 2048  # that are held in fp32 at a time


class Losses:
    """Mean losses over the tokens of `ids_WS`, `batch` windows at a time."""

    def __init__(self, emulated: EmulatedRanks, ids_WS: Tensor, batch: int) -> None:
        self.emulated, self.model = emulated, emulated.model
        self.batches = [ids_WS[at : at + batch] for at in range(0, len(ids_WS), batch)]
        self.layers = self.model.model.layers
        self.start = 0
        self._entering: list[Tensor] = []

    def with_sums(self, sums: dict[tuple[int, str], Sum]) -> float:
        """The mean loss of a token with these sums, all others exact; none of them before the layer of the start."""
        assert all(layer >= self.start for layer, _ in sums)
        with self.emulated.with_sums(sums), torch.no_grad():
            total = sum(self._loss(index, ids) for index, ids in enumerate(self.batches))
        count: int = sum(ids[:, 1:].numel() for ids in self.batches)
        return total / count

    def begin_at(self, layer: int) -> None:
        """From now on forwards start at this layer, from what enters it where every sum is exact."""
        if layer < self.start:
            self.start = 0
        while self.start < layer:
            self._entering = [self._leaving(index, ids) for index, ids in enumerate(self.batches)]
            self.start += 1

    def _leaving(self, index: int, ids: Tensor) -> Tensor:
        """What leaves the layer at which forwards start."""
        found: list[Tensor] = []

        def keep(module: Any, args: Any, output: Any) -> None:  # noqa: ARG001
            if not isinstance(output, Tensor):
                raise RefusedError(
                    "its layers hand on more than the hidden state, which is not supported", field="model"
                )
            found.append(output)
            raise _EnoughError

        hook = self.layers[self.start].register_forward_hook(keep)
        try:
            with torch.no_grad(), self._skipping(index):
                self.model(ids, use_cache=False, logits_to_keep=1)
        except _EnoughError:
            pass
        finally:
            hook.remove()
        return found[0]

    def _loss(self, index: int, ids: Tensor) -> float:
        with self._skipping(index):
            rows = self.model.model(ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
        targets, total = ids[:, 1:].flatten(), 0.0
        for at in range(0, len(targets), _LOGIT_ROWS):
            wanted = targets[at : at + _LOGIT_ROWS]
            logits = self.model.lm_head(rows[at : at + _LOGIT_ROWS]).float()
            total += torch.nn.functional.cross_entropy(logits, wanted, reduction="none").double().sum().item()
        return total

    @contextmanager
    def _skipping(self, index: int) -> Iterator[None]:
        """Layers before the start do nothing, and the last of them gives what is known to leave it."""
        skipped = self.layers[: self.start]
        held = [layer.forward for layer in skipped]
        try:
            for layer in skipped:
                layer.forward = _given(self._entering[index])
            yield
        finally:
            for layer, forward in zip(skipped, held, strict=True):
                layer.forward = forward


class _EnoughError(Exception):
    """The rest of a forward is not needed."""


def _given(rows: Tensor) -> Callable[..., Tensor]:
    return lambda *args, **kwargs: rows  # noqa: ARG005
