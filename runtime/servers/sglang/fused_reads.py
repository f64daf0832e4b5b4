"""Where SGLang reads a stage's input: from the sum that it is owed to the rows that it consumes, as planned.

The read of a stage may carry kernels that complete what the stage before left together with the add and the norm
(`ReadoutFusion`). SGLang asks them before any sum of its own, takes what they return for the stage's input and for the
residual, and looks at the rows of neither. So one of them can run everything that a plan has between two blocks: the
sum or reduce-scatter, the residual in whatever layout, the norm on these rows, and the gather. One that answers None
leaves the batch to the server. Ours answer where that is the plan's to do, for the layer, mode and token count at
hand. What attention leaves is read by the FFN of its layer, what the FFN leaves by the attention of the next. The last
FFN is read by the final norm, which is no stage: its partial rows travel there, and the norm is done with the op
(`FinalNorm`). The first attention reads the embedding, which owes nothing: it gathers behind its norm (`PlannedRead`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from commplan.planner.strategy.file import KINDS, Rows

from ...errors import BoundaryError, RefusedError
from ...kernels.peer_impls import OUR_IMPLS, fuses_norm
from ..forward import Forwards
from .words import CAN

FETCH_LATENTS = "sglang.srt.layers.layer_boundary.adapters.attention.AttentionInputs.fetch_qkv_latent"


class FusedSum:
    """What a plan has behind one boundary of one layer, as a stage's read runs it."""

    def __init__(self, forwards: Forwards, layer: int, boundary: str) -> None:
        self.forwards, self.layer, self.boundary = forwards, layer, boundary

    def __call__(self, owed: Any, residual: Tensor, forward_batch: object, norm: nn.Module) -> Any:  # noqa: ARG002
        """(the stage's input, the residual); None where that is the server's to do, before anything was touched."""
        partial = getattr(owed, "partial", owed)
        if isinstance(partial, Tensor):
            return self.forwards.crossed(self.layer, self.boundary, partial, residual, norm)
        if self.forwards.crosses(self.layer, self.boundary):
            raise BoundaryError(
                f"{type(owed).__name__} is owed, which is more than a sum", where=f"layer {self.layer} {self.boundary}"
            )
        return None


class PlannedRead:
    """A stage's read of SGLang's with what the plan has there; everything else is as the server declares it.

    `sums`: kernels asked for what the stage before left. `first`: called with the normed rows where nothing is owed,
    which is so behind the embedding.
    """

    def __init__(self, read: Any, sums: tuple[Any, ...] = (), first: Callable[[Tensor], Tensor] | None = None) -> None:
        self._read, self._first = read, first
        self.completing_fusions = sums

    def __getattr__(self, name: str) -> Any:
        return getattr(self._read, name)

    def read(self, *args: Any, **options: Any) -> Any:
        """(normed rows as the stage consumes them, residual)."""
        normed, residual = self._read.read(*args, **options)
        return (normed if self._first is None else self._first(normed)), residual


def planned_read(read: Any, run: FusedSum | None, carried: bool, first: Callable[[Tensor], Tensor] | None) -> Any:
    """A stage's read that asks `run`. `carried`: the sum comes from another layer.

    The group of a sum has several names in SGLang, which is asked for by the one that the producer used.
    """
    from sglang.srt.layers.layer_boundary import SumGroup
    from sglang.srt.layers.layer_boundary.contracts import ReadoutFusion

    if not read.is_plain_norm or read.completing_fusions or read.bind is not None:
        where = "layer 0 attn_in" if run is None else f"layer {run.layer} {run.boundary}"
        raise RefusedError(
            "reads its input in a way of its own, so that the add and the norm must be the server's; plan again with "
            f"--set 'numerics.forbid=[{_fused_ops()}, {{op: reduce_scatter}}]'",
            field=where,
            value=type(read).__name__,
        )
    names = (SumGroup.TP, SumGroup.MOE_OUTPUT) if carried else (SumGroup.ATTN_TP, SumGroup.TP)
    sums = [ReadoutFusion(completes=name, run=run, reads=True, carried=carried) for name in names if run is not None]
    return PlannedRead(read, tuple(sums), first)


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
        found = self._forwards.crossed(self._layer, "mlp_out", partial, residual, self._norm)
        assert found is not None
        return found


class LateLatents:
    """Latents that attention projected from a shard of the rows, gathered as planned."""

    def __init__(self, forwards: Forwards) -> None:
        self._forwards = forwards

    def around_fetch(self, fetch: Callable[..., Tensor], inputs: Any) -> Tensor:
        """AttentionInputs.fetch_qkv_latent: once per attention, which may ask again."""
        again = inputs.qkv_latent_ is not None
        latents = fetch(inputs)
        if not again:
            latents = inputs.qkv_latent_ = self._forwards.latents(latents)
        return latents


__all__ = ["FETCH_LATENTS", "FinalNorm", "FusedSum", "LateLatents", "PlannedRead", "planned_read", "reads_by"]
