"""Where SGLang reads a stage's input: the sum that it is owed, the residual add and the norm by one planned kernel.

The read of a stage may carry kernels that complete what the stage before left together with the add and the norm
(`ReadoutFusion`). SGLang asks them before any sum of its own; one that answers None leaves the batch to the next. Ours
answer where the plan has an op whose impl fuses the norm, for the layer, mode and token count at hand. What attention
leaves is read by the FFN of its layer, what the FFN leaves by the attention of the next. The last FFN is read by the
final norm, which is no stage: its partial rows travel there, and the norm is done by the op (`FinalNorm`).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy as copy_of
from typing import Any

from torch import Tensor, nn

from commplan.planner.strategy.file import KINDS, Rows

from ...errors import BoundaryError, RefusedError
from ...kernels.peer_impls import OUR_IMPLS, fuses_norm
from ..forward import Forwards
from .words import CAN

Read = Callable[..., tuple[Tensor, Tensor] | None]


class FusedSum:
    """The sum of one boundary of one layer with the add and the norm behind it, as a stage's read runs it."""

    def __init__(self, forwards: Forwards, layer: int, boundary: str) -> None:
        self.forwards, self.layer, self.boundary = forwards, layer, boundary

    def __call__(self, owed: Any, residual: Tensor, forward_batch: object, norm: nn.Module) -> Any:  # noqa: ARG002
        """(normed, residual) by the planned op; None where it does no norm, before anything has been touched."""
        partial = getattr(owed, "partial", owed)
        if not isinstance(partial, Tensor):  # an FFN that leaves more than a sum has no planned op
            return None
        return self.forwards.fused(self.layer, self.boundary, partial, residual, norm)


def with_fused_sum(read: Any, run: FusedSum, carried: bool) -> Any:
    """A stage's read that asks `run` first. `carried`: the sum comes from another layer.

    The group of a sum has several names in SGLang, which is asked for by the one that the producer used.
    """
    from sglang.srt.layers.layer_boundary import SumGroup
    from sglang.srt.layers.layer_boundary.contracts import ReadoutFusion

    if not read.is_plain_norm or read.completing_fusions or read.bind is not None:
        raise RefusedError(
            "reads its input in a way of its own, which no planned kernel takes; plan again with --set "
            f"'numerics.forbid=[{_fused_ops()}]'",
            field=f"layer {run.layer} {run.boundary}",
            value=type(read).__name__,
        )
    names = (SumGroup.TP, SumGroup.MOE_OUTPUT) if carried else (SumGroup.ATTN_TP, SumGroup.TP)
    fused = tuple(ReadoutFusion(completes=name, run=run, reads=True, carried=carried) for name in names)
    found = copy_of(read)
    object.__setattr__(found, "completing_fusions", fused)
    return found


def _fused_ops() -> str:
    """Every op by an impl that does the norm behind it, as a deployment forbids them."""
    norms = [impl for impl in OUR_IMPLS if fuses_norm(impl)]
    return ", ".join(
        f"{{op: {op}, impl: {impl}}}" for impl in norms for op in CAN.ops_of(impl) if KINDS[op].rows is Rows.SUMMED
    )


def reads_by(path: Any, run: FusedSum) -> bool:
    """True if the entry of a stage's path asks this kernel."""
    bound = path.entry.prepare.keywords
    offered = (*bound["read"].completing_fusions, *bound["carried_read_fusions"])
    return any(fusion.run is run for fusion in offered)


class FinalNorm:
    """In place of the final norm, where the last FFN's sum is still owed."""

    def __init__(self, forwards: Forwards, layer: int, norm: nn.Module) -> None:
        self._forwards, self._layer, self._norm = forwards, layer, norm

    def __call__(self, partial: Tensor, residual: Tensor | None = None, **options: Any) -> Any:
        """(normed, residual) of the last FFN's partial rows."""
        where = f"layer {self._layer} mlp_out"
        if residual is None or options:
            raise BoundaryError("the final norm is called in another way than the planned op does it", where=where)
        found = self._forwards.fused(self._layer, "mlp_out", partial, residual, self._norm)
        assert found is not None
        return found


__all__ = ["FinalNorm", "FusedSum", "reads_by", "with_fused_sum"]
