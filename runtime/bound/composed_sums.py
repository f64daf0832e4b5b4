"""The sums of `_out` boundaries by kernels around what carries messages, alone or with the add and the norm behind."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from commplan.planner.strategy.file import Layout, is_finer

from ..ranks.groups import Groups
from .counts import Place
from .layouts import Call, as_it_is, slicer
from .peer_sums import Normed
from .sizes import Sizes


class ComposedSum(Protocol):
    """What performs them: WireSum, or HostOneShot."""

    def sum(self, x_TH: Tensor, /) -> Tensor:
        """[T, H] summed over the group."""

    def sum_norm(
        self, x_TH: Tensor, residual_TH: Tensor | None, weight_H: Tensor, eps: float, /, *, overwrite: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(RMSNorm of sum + residual, sum + residual)."""


def composed_sum(place: Place, groups: Groups, composed: ComposedSum, partial: Layout) -> Call:
    """The op of a place: all rows of the message, cut to the destination's."""
    destination = place.after.hidden
    cut = slicer(groups, partial, destination) if is_finer(destination, partial) else as_it_is
    return lambda x, sizes: cut(composed.sum(x.contiguous()), sizes)


def composed_norm(composed: ComposedSum) -> Normed:
    """The op of a place, the residual add and the norm."""

    def run(
        x: Tensor, residual: Tensor | None, sizes: Sizes, norm: nn.Module, owned: bool  # noqa: ARG001
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        whole = None if residual is None else residual.contiguous()
        weight: Tensor = norm.weight  # type: ignore[assignment]
        eps: float = norm.variance_epsilon  # type: ignore[assignment]
        return composed.sum_norm(x.contiguous(), whole, weight, eps, overwrite=owned)

    return run
