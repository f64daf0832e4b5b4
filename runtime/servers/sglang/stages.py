"""The stages of a decoder layer, as SGLang builds them under a plan: the sum they owe, and how they read input."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from torch import Tensor

from commplan.planner.strategy.file import StrategyFile

from ...errors import RefusedError
from ...kernels.peer_impls import norm_uses
from ..forward import Forwards
from .fused_reads import FusedSum, reads_by, with_fused_sum

_BOUNDARIES = {"ATTENTION": "attn_out", "FFN": "mlp_out"}


class PlannedSum:
    """The sum of one boundary of one layer, as SGLang calls it: run(partial, forward_batch)."""

    def __init__(self, forwards: Forwards, layer: int, boundary: str) -> None:
        self.forwards, self.layer, self.boundary = forwards, layer, boundary

    def __call__(self, partial: Tensor, forward_batch: object = None) -> Tensor:  # noqa: ARG002
        """[T, H] partial rows to their sum."""
        return self.forwards.sum(self.layer, self.boundary, partial)


class Deferral:
    """Is an FFN's sum left to the next layer's read? Where its op does the norm there; else it runs where it stands."""

    def __init__(self, forwards: Forwards, layer: int) -> None:
        self.forwards, self.layer = forwards, layer

    def __call__(self, forward_batch: object) -> bool:  # noqa: ARG002
        """As SGLang asks before the FFN runs."""
        if self.layer + 1 == self.forwards.file.model.num_hidden_layers:
            return False  # the final norm is no stage
        return self.forwards.fuses(self.layer, "mlp_out")


class PlannedStages:
    """The planned sums and reads of all layers.

    As SGLang calls it.
    """

    def __init__(self, file: StrategyFile, forwards: Forwards) -> None:
        self.file, self.forwards = file, forwards
        self._sums: dict[tuple[int, str], Any] = {}
        self._reads: dict[tuple[int, str], Any] = {}

    def planned(self, stage: Any, layer: int) -> Any:
        """What SGLang declares of a stage, with the planned sum and the planned read."""
        boundary = _BOUNDARIES[stage.kind.name]
        return replace(stage, sum_impl=self._sum(layer, boundary), read=self._read(layer, boundary, stage.read))

    def _read(self, layer: int, boundary: str, read: Any) -> Any:
        """The read of the stage before a boundary, with the planned kernel for what the stage before left it."""
        before = (layer, "attn_out") if boundary == "mlp_out" else (layer - 1, "mlp_out")
        if before not in self.fused_places:
            return read
        if before not in self._reads:
            run = FusedSum(self.forwards, *before)
            self._reads[before] = run, with_fused_sum(read, run, carried=before[0] != layer)
        return self._reads[before][1]

    @functools.cached_property
    def fused_places(self) -> frozenset[tuple[int, str]]:
        """Layer and boundary of every op that does the norm behind it, in any mode or range."""
        return frozenset((use.layer, use.boundary) for use in norm_uses(self.file) if use.layer is not None)

    def _sum(self, layer: int, boundary: str) -> Any:
        """As SGLang calls it."""
        from sglang.srt.layers.layer_boundary.output import SumImplementation

        found = self._sums.get((layer, boundary))
        if found is None:
            can_defer = Deferral(self.forwards, layer) if boundary == "mlp_out" else None
            found = SumImplementation(PlannedSum(self.forwards, layer, boundary), can_defer=can_defer)
            self._sums[layer, boundary] = found
        return found

    def prove(self, layer: int, boundary: str, stage: Any) -> None:
        """Raises RefusedError unless a stage that was built runs the planned op on every batch."""
        for variant, path in stage.plan.paths.items():
            run = getattr(path.output.sum_impl, "run", None)
            ours = isinstance(run, PlannedSum) and run.forwards is self.forwards
            here = isinstance(run, PlannedSum) and (run.layer, run.boundary) == (layer, boundary)
            if (
                variant.name != "ORDINARY"
                or not ours
                or not here
                or not self._reads_what_is_left(layer, boundary, path)
            ):
                raise RefusedError(
                    f"layer {layer} {boundary} does not run the planned op on {variant.name} batches", field="layers"
                )

    def _reads_what_is_left(self, layer: int, boundary: str, path: Any) -> bool:
        """Does a stage ask the planned kernel for what was left to it, and may it leave its own?"""
        last = self.file.model.num_hidden_layers - 1
        leaves = boundary == "mlp_out" and layer < last and (layer, boundary) in self.fused_places
        if leaves and not path.exit.may_defer_sum:
            return False
        before = (layer, "attn_out") if boundary == "mlp_out" else (layer - 1, "mlp_out")
        return before not in self.fused_places or reads_by(path, self._reads[before][0])


__all__ = ["PlannedStages", "PlannedSum"]
