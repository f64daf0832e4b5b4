"""The strategy file as values. Layers are spelled out one by one; runs of equal layers exist only in the text."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..layout import ALL_TO_ALL, LayerShape, Parallelism
from ..ops import Op
from ..words import ModelRole, Numerics

STRATEGY_SCHEMA = "commplan/strategy/v1"


@dataclass(frozen=True, slots=True)
class ModelStamp:
    """The model a plan was made for: what legality depends on, and the fingerprint of its description."""

    name: str
    role: ModelRole
    architecture: str
    num_hidden_layers: int
    hidden_size: int
    latent_width: int  # columns of the MLA latents; 0 without q_lora_rank
    moe_layers: frozenset[int]
    fingerprint: str
    residual_streams: int = 1  # of hidden width, between layers


@dataclass(frozen=True, slots=True)
class HardwareStamp:
    """The machine a plan was made for, and its collective backend: the impl of every op that names none."""

    name: str
    backend: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class DeploymentStamp:
    """The deployment a plan was made for."""

    name: str
    activations: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class LayerOps:
    """The ops of one layer."""

    attn_in: Op
    attn_out: Op
    mlp_in: Op
    mlp_out: Op

    def at(self, boundary: str) -> Op:
        """The op at a boundary of the layer."""
        op: Op = getattr(self, boundary)
        return op


@dataclass(frozen=True, slots=True)
class FasterRival:
    """The stock server, where it leads a range's plan: from one token count to another, at most by this share.

    flag  that it is started with; None: by itself
    """

    flag: str | None
    first: int
    last: int
    lead: float

    def touches(self, later: FasterRival) -> bool:
        """True where another one goes on with the same flag."""
        return self.flag == later.flag and self.last + 1 == later.first


def rival_line(mode: str, rival: FasterRival) -> str:
    """That the stock server is faster than a plan, and where: for every command that shows or runs one."""
    who = "The stock server by itself" if rival.flag is None else f"The stock flag {rival.flag}"
    tokens = f"{rival.first}-{rival.last}" if rival.first != rival.last else str(rival.first)
    most = "up to " if rival.first != rival.last else ""
    return f"{who} is faster than this plan in {mode} of {tokens} tokens, by {most}{rival.lead:.1%}"


def joined(rivals: Iterable[tuple[str, FasterRival]]) -> tuple[tuple[str, FasterRival], ...]:
    """Modes with their rivals, flags first; those of ranges that touch are one."""
    found: list[tuple[str, FasterRival]] = []
    for mode, rival in sorted(rivals, key=lambda each: (each[1].flag is None, each[1].flag or "")):
        if found and found[-1][0] == mode and found[-1][1].touches(rival):
            before = found.pop()[1]
            lead = max(before.lead, rival.lead)
            found.append((mode, FasterRival(rival.flag, before.first, rival.last, lead)))
        else:
            found.append((mode, rival))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Predicted:
    """What the planner expected at one token count of a range; all times in us.

    all_reduce_us    plain all-reduce by what the executor has without a plan
    stock_us         the server by itself, by its own rules
    stock_source     the weakest provenance of its wire times, as `source` is of the plan's
    best_stock_flag  the best flag of that server and its step; None where none applies
    library_us       plain all-reduce by the library alone
    faster_rivals    where in the range that server, by itself or with a flag, leads the plan

    Files that are older than the last five say nothing of them.
    """

    tokens: int
    step_us: float
    all_reduce_us: float
    best_uniform: tuple[str, float] | None  # strategy, step time
    worst_loss: float
    source: str
    stock_us: float | None = None
    stock_source: str | None = None
    best_stock_flag: tuple[str, float] | None = None
    library_us: float | None = None
    faster_rivals: tuple[FasterRival, ...] = ()
    host_wait_us: float = 0.0  # of the step, where the host launches more slowly than the device works
    perplexity_rise: float | None = None  # relative, of all quantised sums; None: no effects on the loss are known
    perplexity_budget: float | None = None  # that it was planned under

    @property
    def flag_helps(self) -> bool:
        """True where the best flag of the server makes its step shorter: no gain over another is one worth telling."""
        flag = self.best_stock_flag
        return flag is not None and self.stock_us is not None and flag[1] <= self.stock_us


def is_faster(rival_us: float, step_us: float) -> bool:
    """True where a rival's step is shorter than a plan's by more than rounding hides: as `0.999x` or less."""
    return round(rival_us / step_us, 3) < 1


@dataclass(frozen=True, slots=True)
class RangePlan:
    """The ops of a forward whose token count lies in [first, last]."""

    first: int
    last: int
    embed_out: Op
    layers: tuple[LayerOps, ...]
    head_in: Op
    predicted: Predicted | None = None


@dataclass(frozen=True)
class StrategyFile:
    """A plan: for each forward mode, ranges of token counts in order and without gap.

    `overrides` are the fields of the deployment that `--set` gave when it was planned, with their values.
    """

    model: ModelStamp
    hardware: HardwareStamp
    deployment: DeploymentStamp
    executor: str
    parallelism: Parallelism
    numerics: Numerics  # loosest class that the plan may use
    modes: dict[str, tuple[RangePlan, ...]]
    overrides: dict[str, Any] = field(default_factory=dict)

    @property
    def faster_rivals(self) -> tuple[tuple[str, FasterRival], ...]:
        """Mode and rival wherever the stock server is predicted to be faster than the plan, its flags first."""
        found = ((mode, r.predicted) for mode, ranges in self.modes.items() for r in ranges)
        return joined((mode, rival) for mode, p in found if p is not None for rival in p.faster_rivals)

    @property
    def pushes_rows(self) -> bool:
        """Do the rows of some sum travel while the GEMM that makes them goes on?"""
        layers = (layer for ranges in self.modes.values() for plan in ranges for layer in plan.layers)
        return any(op.is_pushed for layer in layers for op in (layer.attn_out, layer.mlp_out))

    @cached_property
    def _starts(self) -> dict[str, list[int]]:
        return {mode: [r.first for r in ranges] for mode, ranges in self.modes.items()}

    def range_of(self, mode: str, tokens: int) -> RangePlan:
        """The range that holds a token count; raises LookupError where the file has none. O(log ranges)."""
        ranges = self.modes.get(mode)
        if ranges is None:
            raise LookupError(f"the strategy file has no section for mode {mode}; it has {', '.join(self.modes)}")
        index = bisect_right(self._starts[mode], tokens) - 1
        if index < 0 or tokens > ranges[index].last:
            raise LookupError(
                f"{tokens} tokens lie outside the planned {mode} span [{ranges[0].first}, {ranges[-1].last}]"
            )
        return ranges[index]

    def layer_shape(self, layer: int) -> LayerShape:
        """What the layout algebra needs to know of a layer."""
        all_to_all = self.parallelism.moe_backend == ALL_TO_ALL and self.parallelism.tp > 1
        return LayerShape(
            all_to_all=all_to_all and layer in self.model.moe_layers,
            has_latent=self.model.latent_width > 0,
            streams=self.model.residual_streams,
            ends_stage=self.parallelism.ends_stage(layer, self.model.num_hidden_layers),
        )
