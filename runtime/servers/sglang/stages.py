"""The stages of a decoder layer, as SGLang builds them under a plan: the sum they owe, and how they read input."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from torch import Tensor

from commplan.planner.strategy.file import RESIDUAL_OUT, TOKEN_SHARDED, RangePlan, StrategyFile, walk

from ...errors import RefusedError
from ..crossing import crosses
from ..forward import Forwards
from .fused_reads import FETCH_LATENTS, FusedSum, LateLatents, PlannedRead, planned_read, reads_by

_BOUNDARIES = {"ATTENTION": "attn_out", "FFN": "mlp_out"}


class PlannedSum:
    """The sum of one boundary of one layer, as SGLang calls it: run(partial, forward_batch)."""

    def __init__(self, forwards: Forwards, layer: int, boundary: str) -> None:
        self.forwards, self.layer, self.boundary = forwards, layer, boundary

    def __call__(self, partial: Tensor, forward_batch: object = None) -> Tensor:  # noqa: ARG002
        """[T, H] partial rows to their sum."""
        return self.forwards.sum(self.layer, self.boundary, partial)


class Deferral:
    """Is an FFN's sum left to the next layer's read? Where the add and the norm are the plan's; else it runs here."""

    def __init__(self, forwards: Forwards, layer: int) -> None:
        self.forwards, self.layer = forwards, layer

    def __call__(self, forward_batch: object) -> bool:  # noqa: ARG002
        """As SGLang asks before the FFN runs."""
        if self.layer + 1 == self.forwards.file.model.num_hidden_layers:
            return False  # the final norm is no stage
        return self.forwards.crosses(self.layer, "mlp_out")


class PlannedStages:
    """The planned sums and reads of all layers.

    As SGLang calls it.
    """

    def __init__(self, file: StrategyFile, forwards: Forwards) -> None:
        self.file, self.forwards = file, forwards
        self._late_latents = LateLatents(forwards)
        self._sums: dict[tuple[int, str], Any] = {}
        self._reads: dict[tuple[int, str], Any] = {}

    def table(self) -> dict[str, Any]:
        """Dotted path of a function of SGLang's -> the hook around it: for latents, where some are gathered late."""
        late = any(layer.attn_in.kind.latent for plan in self._ranges for layer in plan.layers)
        return {FETCH_LATENTS: self._late_latents.around_fetch} if late else {}

    def planned(self, stage: Any, layer: int) -> Any:
        """What SGLang declares of a stage, with the planned sum and the planned read."""
        boundary = _BOUNDARIES[stage.kind.name]
        return replace(stage, sum_impl=self._sum(layer, boundary), read=self._read(layer, boundary, stage.read))

    def _read(self, layer: int, boundary: str, read: Any) -> Any:
        """The read of the stage before a boundary, with what the plan has for that which the stage before left it."""
        before = _left_to(layer, boundary)
        key = (layer, boundary)
        owes = before in self.crossed_places
        first = self.forwards.entered_first if key == (0, "attn_out") and self.scatters_embedding else None
        if not owes and first is None:
            return read
        if key not in self._reads:
            run = FusedSum(self.forwards, *before) if owes else None
            self._reads[key] = run, planned_read(read, run, before[0] != layer, first)
        return self._reads[key][1]

    @functools.cached_property
    def crossed_places(self) -> frozenset[tuple[int, str]]:
        """Layer and boundary of every op with the add and the norm behind it, in any mode or range."""
        return frozenset(
            (layer, boundary)
            for plan in self._ranges
            for layer, boundary, op, before, after in walk(self.file, plan)
            if layer is not None and before is not None and boundary in RESIDUAL_OUT and crosses(op, before, after)
        )

    @functools.cached_property
    def scatters_embedding(self) -> bool:
        """Does some range leave the embedding in shards?"""
        return any(next(walk(self.file, plan))[4].hidden == TOKEN_SHARDED for plan in self._ranges)

    @property
    def _ranges(self) -> list[RangePlan]:
        return [plan for ranges in self.file.modes.values() for plan in ranges]

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
        """Does a stage ask the plan for what was left to it, and may it leave its own?"""
        last = self.file.model.num_hidden_layers - 1
        leaves = boundary == "mlp_out" and layer < last and (layer, boundary) in self.crossed_places
        if leaves and not path.exit.may_defer_sum:
            return False
        run, read = self._reads.get((layer, boundary), (None, None))
        is_read = isinstance(read, PlannedRead) and path.entry.prepare.keywords["read"] is read
        return (read is None or is_read) and (run is None or reads_by(path, run))


def _left_to(layer: int, boundary: str) -> tuple[int, str]:
    """The boundary behind which the stage that ends at this one reads."""
    return (layer, "attn_out") if boundary == "mlp_out" else (layer - 1, "mlp_out")


__all__ = ["PlannedStages", "PlannedSum"]
