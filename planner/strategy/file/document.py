"""The strategy file as values. Layers are spelled out one by one; runs of equal layers exist only in the text."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

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
class Predicted:
    """What the planner expected at one token count of a range; all times in us."""

    tokens: int
    step_us: float
    all_reduce_us: float
    best_uniform: tuple[str, float] | None  # strategy, step time
    worst_loss: float
    source: str
    host_wait_us: float = 0.0  # of the step, where the host launches more slowly than the device works


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
    """A plan: for each forward mode, ranges of token counts in order and without gap."""

    model: ModelStamp
    hardware: HardwareStamp
    deployment: DeploymentStamp
    executor: str
    parallelism: Parallelism
    numerics: Numerics  # loosest class that the plan may use
    modes: dict[str, tuple[RangePlan, ...]]

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
        )
