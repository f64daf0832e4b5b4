"""Embedding and LM head, sharded over the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .groups import Group
from .layer import add_and_norm

if TYPE_CHECKING:
    from .executor import Executor
    from .stream import Stream


class VocabParallelEmbedding(nn.Module):
    """Looks up the tokens whose rows this rank holds; the others are zero, so that the ranks' sum is the embedding."""

    def __init__(self, weight: nn.Parameter, first: int, last: int) -> None:
        super().__init__()
        self.weight = weight
        self.first, self.last = first, last

    def forward(self, ids_BS: Tensor) -> Tensor:
        """[B, S] token ids to partial [B, S, H]."""
        mine = (ids_BS >= self.first) & (ids_BS < self.last)
        rows = F.embedding((ids_BS - self.first) * mine, self.weight)
        return rows * mine.unsqueeze(-1)


class FinalNorm(nn.Module):
    """The model's last norm, then head_in: a stream becomes the rows that the head reads."""

    def __init__(self, norm: nn.Module, executor: Executor) -> None:
        super().__init__()
        self.norm = norm
        self._executor = [executor]  # in a list: not a submodule

    def forward(self, stream: Stream) -> Tensor:
        """A Stream to [B, kept, H]."""
        executor = self._executor[0]
        normed, _ = add_and_norm(executor, stream, self.norm)
        return executor.leave(normed, stream)


class VocabParallelHead(nn.Module):
    """[B, kept, H] to logits [B, kept, V]: each rank multiplies its part of the vocabulary; the parts are gathered."""

    def __init__(self, weight: nn.Parameter, vocab_size: int, group: Group, executor: Executor) -> None:
        super().__init__()
        self.weight = weight
        self.vocab_size = vocab_size
        self._group = group
        self._executor = [executor]

    def forward(self, x: Tensor) -> Tensor:
        """Logits of this rank's requests."""
        executor = self._executor[0]
        rows = executor.head_rows(x)
        part = F.linear(rows, self.weight)
        if self._group.size > 1:
            parts = executor.backend.all_gather(part, self._group)
            part = parts.view(self._group.size, rows.shape[0], -1).transpose(0, 1).reshape(rows.shape[0], -1)
        logits = part[:, : self.vocab_size]
        first, count = executor.own_logit_rows(rows.shape[0])
        return logits[first : first + count].view(*x.shape[:-1], self.vocab_size)
