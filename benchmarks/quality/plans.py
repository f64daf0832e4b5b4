"""The plans that `bench.py` reads a text under: one format everywhere, and within budgets of perplexity."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from formats import FORMATS, row_bytes

import commplan
from commplan.planner.descriptions.sensitivity import Sensitivity
from commplan.planner.strategy.file import LayerOps, RangePlan, load, save
from commplan.planner.strategy.ops import Op

DEPLOYMENT = "qwen3-0.6b-cpu-tp2"
SLOW = {"hardware.links.intra_node.bandwidth_gb_per_s": 0.02}  # no machine: a link on which only bytes count
MODE, SUMS = "prefill", ("attn_out", "mlp_out")


class Plans:
    """Strategy files of a checkpoint over so many ranks, written into a folder."""

    def __init__(self, folder: Path, checkpoint: Path, ranks: int) -> None:
        self.folder = folder
        self._given = {"model": str(checkpoint / "config.json"), "parallelism.tp": ranks, **SLOW}

    def exact(self) -> Path:
        """Every sum plain."""
        return self._everywhere("exact", Op("all_reduce"))

    def everywhere(self, name: str) -> Path:
        """Every sum in one format."""
        return self._everywhere(name, replace(FORMATS[name], impl="composed_norm"))

    def _everywhere(self, name: str, op: Op) -> Path:
        """On this link a plan without a budget quantises every sum: that plan with its sums exchanged."""
        plan = load(self._written("base", self._given | {"numerics.loosest": "quantized"}))
        modes = {mode: tuple(_with_sums(each, op) for each in ranges) for mode, ranges in plan.modes.items()}
        file = self.folder / f"everywhere-{_slug(name)}.yaml"
        save(replace(plan, modes=modes), file)
        return file

    def within(self, budget: float, sensitivity: Path, known: Sensitivity) -> Path:
        """The cheapest plan whose perplexity the effects let rise by so much, all measured formats allowed."""
        wires = list(dict.fromkeys(each.wire for each in known.formats))
        numerics = {"loosest": "quantized", "wire_formats": wires, "perplexity_budget": budget}
        numerics["sensitivity"] = str(sensitivity.resolve())
        given = {f"numerics.{name}": value for name, value in numerics.items()}
        return self._written(f"within-{budget:.5f}", self._given | given)

    def _written(self, name: str, given: dict[str, object]) -> Path:
        file = self.folder / f"{name}.yaml"
        commplan.plan(DEPLOYMENT, set=given).save(str(file))  # type: ignore[arg-type]
        return file

    @staticmethod
    def predicted(plan: Path, tokens: int, known: Sensitivity) -> float | None:
        """The relative rise of perplexity that the effects of a plan's sums add up to; what came out negative is 0.

        None where some sum's format has no effects.
        """
        total = 0.0
        for boundary in SUMS:
            for layer, op in enumerate(_sums(plan, tokens, boundary)):
                effects = known.effects_of(op)
                if effects is not None:
                    total += max(0.0, getattr(effects.loss, boundary)[layer])
                elif op.wire is not None:
                    return None
        return math.expm1(total)

    @staticmethod
    def bytes_a_value(plan: Path, tokens: int, width: int) -> float:
        """Mean over the sums, bf16 where they are plain."""
        ops = [op for boundary in SUMS for op in _sums(plan, tokens, boundary)]
        return sum(row_bytes(op if op.wire else None, width) for op in ops) / len(ops) / width

    @staticmethod
    def kept_exact(plan: Path, tokens: int) -> int:
        """Sums that are plain."""
        return sum(op.wire is None for boundary in SUMS for op in _sums(plan, tokens, boundary))


def _sums(plan: Path, tokens: int, boundary: str) -> list[Op]:
    return [ops.at(boundary) for ops in load(plan).range_of(MODE, tokens).layers]


def _with_sums(plan: RangePlan, op: Op) -> RangePlan:
    layers = tuple(LayerOps(ops.attn_in, op, ops.mlp_in, op) for ops in plan.layers)
    return replace(plan, layers=layers, predicted=None)


def _slug(name: str) -> str:
    return "-".join(name.lower().replace(",", "").split())
