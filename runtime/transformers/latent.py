"""The late gather of MLA latents without touching the attention's code.

q_a_proj and kv_a_proj_with_mqa (V3.2: also the indexer's wk and weights_proj) are the only readers of the attention's
hidden states. A stand-in for each either is the projection, or, after a late gather, takes its columns out of the
gathered latents that come in as hidden states.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn


class LatentProjection(nn.Module):
    """A projection whose output may already lie in its input: columns [first, last) of the gathered latents."""

    def __init__(self, projection: nn.Linear, first: int) -> None:
        super().__init__()
        self.projection = projection
        self.first, self.last = first, first + projection.out_features
        self.gathered = False

    @property
    def weight(self) -> Tensor:
        """The projection's weight, for code that looks at it."""
        return self.projection.weight

    @property
    def bias(self) -> Tensor | None:
        """The projection's bias."""
        return self.projection.bias

    def forward(self, x: Tensor) -> Tensor:
        """[.., H] hidden states or [.., width] latents to [.., out_features]."""
        if self.gathered:
            return x[..., self.first : self.last]
        out: Tensor = self.projection(x)
        return out


class Latents:
    """The stand-ins of one attention module. `complete`: it has all of them, so no index of another layer (GLM-5)."""

    def __init__(self, attention: nn.Module, names: tuple[str, ...]) -> None:
        self.stand_ins: list[LatentProjection] = []
        first = 0
        for name in names:
            *path, attribute = name.split(".")
            owner = functools.reduce(getattr, path, attention)
            if owner is None:
                continue
            stand_in = LatentProjection(getattr(owner, attribute), first)
            setattr(owner, attribute, stand_in)
            self.stand_ins.append(stand_in)
            first = stand_in.last
        self.width = first
        self.complete = len(self.stand_ins) == len(names)

    def project(self, x_RH: Tensor) -> Tensor:
        """[R, H] normed rows to [R, width] latents, side by side."""
        return torch.cat([stand_in.projection(x_RH) for stand_in in self.stand_ins], dim=-1)

    def set_gathered(self, gathered: bool) -> None:
        """Say what comes in as hidden states: rows, or gathered latents."""
        for stand_in in self.stand_ins:
            stand_in.gathered = gathered
