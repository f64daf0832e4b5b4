"""The sums of `_out` boundaries by kernels around the library, alone or with the add and the norm behind them."""

from __future__ import annotations

from torch import Tensor, nn

from commplan.planner.strategy.file import Layout, is_finer

from ..collectives.wire_sums import WireSum
from ..ranks.groups import Groups
from .counts import Place
from .layouts import Call, as_it_is, slicer
from .peer_sums import Normed
from .sizes import Sizes


def composed_sum(place: Place, groups: Groups, composed: WireSum, partial: Layout) -> Call:
    """The op of a place: all rows of the message, cut to the destination's."""
    destination = place.after.hidden
    cut = slicer(groups, partial, destination) if is_finer(destination, partial) else as_it_is
    return lambda x, sizes: cut(composed.sum(x.contiguous()), sizes)


def composed_norm(composed: WireSum) -> Normed:
    """The op of a place, the residual add and the norm."""

    def run(
        x: Tensor, residual: Tensor | None, sizes: Sizes, norm: nn.Module, owned: bool  # noqa: ARG001
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        whole = None if residual is None else residual.contiguous()
        weight: Tensor = norm.weight  # type: ignore[assignment]
        eps: float = norm.variance_epsilon  # type: ignore[assignment]
        return composed.sum_norm(x.contiguous(), whole, weight, eps, overwrite=owned)

    return run
