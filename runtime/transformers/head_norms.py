"""RMSNorms of queries and keys that span the heads of all ranks, over heads that are sharded.

What a rank lacks is one number for each row and norm: the mean square over the other ranks' heads. Both travel in one
small all-reduce within the attention, which is no boundary of the plan: the same under every strategy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..backends import Backend
from ..ranks.groups import Group


class SpanningNorms:
    """The norms of one attention module, taken over with the projections before them.

    Queries are asked for first: then both are projected and normed, and the keys wait for who asks for them.
    """

    def __init__(self, attention: nn.Module, names: tuple[str, ...], group: Group, backend: Backend) -> None:
        self._norms: list[Any] = [attention.get_submodule(name) for name in names]
        self._projections: list[Any] = [attention.q_proj, attention.k_proj]
        self._group, self._backend = group, backend
        self._keys: Tensor | None = None
        attention.q_proj, attention.k_proj = _Asked(self.queries), _Asked(self.keys)
        for name in names:
            setattr(attention, name, nn.Identity())

    def queries(self, x: Tensor) -> Tensor:
        """[.., H] hidden states to this rank's normed queries."""
        wide = [projection(x).float() for projection in self._projections]
        squares = torch.cat([part.square().mean(-1, keepdim=True) for part in wide], dim=-1)
        rows = squares.reshape(-1, len(wide))
        means = (self._backend.all_reduce(rows, self._group) / self._group.size).view(squares.shape)
        normed: list[Tensor] = [
            norm.weight * (part * torch.rsqrt(means[..., n : n + 1] + norm.variance_epsilon)).to(x.dtype)
            for n, (norm, part) in enumerate(zip(self._norms, wide, strict=True))
        ]
        self._keys = normed[1]
        return normed[0]

    def keys(self, x: Tensor) -> Tensor:  # noqa: ARG002
        """The normed keys of the same rows."""
        keys, self._keys = self._keys, None
        assert keys is not None, "keys before queries"
        return keys


class _Asked(nn.Module):
    """Stands for a projection."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self._answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return self._answer(x)  # type: ignore[operator, no-any-return]
