"""Embedding and LM head, sharded over the vocabulary."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..ranks.groups import Group
from .head import head_rows, leave, own_logit_rows
from .layer import add_and_norm
from .running_forward import RunningForward
from .stream import Stream
from .streams import read_head


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
    """The model's last norm, then head_in: a stream becomes the rows that the head reads.

    `connection`: the residual is several streams, and this makes one row of them.
    """

    def __init__(self, norm: nn.Module, now: RunningForward, connection: nn.Module | None = None) -> None:
        super().__init__()
        self.norm, self.connection = norm, connection
        self._now = [now]  # in a list: not a submodule

    def forward(self, stream: Stream) -> Tensor:
        """A Stream to [B, kept, H]."""
        now = self._now[0]
        if self.connection is not None:
            return leave(now, now.backend.rms_norm(read_head(self.connection, stream), self.norm), stream)
        normed, _ = add_and_norm(now, stream, self.norm)
        return leave(now, normed, stream)


class VocabParallelHead(nn.Module):
    """[B, kept, H] to logits [B, kept, V]: each rank multiplies its part of the vocabulary; the parts are gathered."""

    def __init__(self, weight: nn.Parameter, vocab_size: int, group: Group, now: RunningForward) -> None:
        super().__init__()
        self.weight = weight
        self.vocab_size = vocab_size
        self._group = group
        self._now = [now]

    def forward(self, x: Tensor) -> Tensor:
        """Logits of this rank's requests."""
        now = self._now[0]
        rows = head_rows(now, x)
        part = F.linear(rows, self.weight)
        if self._group.size > 1:
            parts = now.backend.all_gather(part, self._group)
            part = parts.view(self._group.size, rows.shape[0], -1).transpose(0, 1).reshape(rows.shape[0], -1)
        logits = part[:, : self.vocab_size]
        first, count = own_logit_rows(now, rows.shape[0])
        return logits[first : first + count].view(*x.shape[:-1], self.vocab_size)
