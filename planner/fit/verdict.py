"""Weights, KV cache, activations and the server's share against the memory of a device: fits or not, and why not.

Weights and KV cache fill at most the static fraction of a device; activations, workspaces, graphs and the context live
in the rest. Where activations alone take more than that rest, the KV cache gives way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ..descriptions.setup import Setup
from ..strategy.words import WeightPart
from .parts import Asked, Cache, stages_of, weight_bytes

Part = Literal["weights", "activations", "kv_cache"]


@dataclass(frozen=True)
class Peak:
    """The most bytes of activations and workspaces on a rank, under a plan and under plain all-reduce."""

    plan: float = 0.0
    plain: float = 0.0


NO_ACTIVATIONS = Peak()


@dataclass(frozen=True)
class Fit:
    """One deployment against the memory of one of its devices; all in bytes per rank."""

    capacity: float
    static_fraction: float
    weights: dict[WeightPart, float]
    cache: float  # of what is asked
    asked: Asked
    token_bytes: float
    request_bytes: float
    peak: Peak
    layers: tuple[int, int]  # that are loaded, of the model's
    stage: tuple[int, int] | None = None  # the pipeline stage that has least room, of how many; None: there is one
    most_tokens: Mapping[str, int] = field(default_factory=dict)
    """By mode whose largest forward finds no room in the cache: the largest that does, 0 where none does."""

    @property
    def weight_bytes(self) -> float:
        """All weights."""
        return sum(self.weights.values())

    @property
    def static(self) -> float:
        """What weights and KV cache may fill."""
        return min(self.static_fraction * self.capacity, self.capacity - self.peak.plan)

    @property
    def cache_room(self) -> float:
        """What weights leave of it; below zero where they do not fit."""
        return self.static - self.weight_bytes

    @property
    def kv_tokens_left(self) -> int:
        """Tokens of KV cache that there is room for, with the requests that are asked."""
        room = self.cache_room - self.asked.requests * self.request_bytes
        return max(0, int(room / self.token_bytes)) if self.token_bytes else 0

    @property
    def kv_tokens_cost(self) -> int:
        """Tokens of KV cache that the plan's activations and workspaces take beyond those of plain all-reduce."""
        return round((self.peak.plan - self.peak.plain) / self.token_bytes) if self.token_bytes else 0

    @property
    def misses(self) -> Part | None:
        """The part that there is no room for, or None where all fits."""
        if self.weight_bytes > self.static_fraction * self.capacity:
            return "weights"
        if self.cache_room < 0:
            return "activations"
        return "kv_cache" if self.cache > self.cache_room else None

    @property
    def fits(self) -> bool:
        """True where everything has its place."""
        return self.misses is None


def fit(setup: Setup, forwards: Iterable[tuple[str, int]] | None = None, peak: Peak = NO_ACTIVATIONS) -> Fit:
    """What the forwards (mode and tokens; each mode's largest, if none are given) need of a device of the setup.

    Of pipeline stages the one that has least room. The peak is that of the whole forward, wherever it lies.
    """
    forwards = list(forwards or ((mode, spec.tokens[1]) for mode, spec in setup.deployment.modes.items()))
    stages = stages_of(setup)
    if stages == (None,):
        return _of_stage(setup, None, forwards, peak)
    found = [
        replace(_of_stage(setup, stage, forwards, peak), stage=(number, len(stages)))
        for number, stage in enumerate(stages, start=1)
    ]
    return min(found, key=_room)


def _room(found: Fit) -> tuple[float, float]:
    """Tokens that there is room for, and bytes; a stage without a cache of tokens takes any number of them."""
    tokens = found.kv_tokens_left if found.token_bytes or found.misses else float("inf")
    return tokens, found.cache_room - found.cache


def _of_stage(setup: Setup, stage: range | None, forwards: list[tuple[str, int]], peak: Peak) -> Fit:
    cache, deployment = Cache(setup, stage), setup.deployment
    asked = max((cache.asked(mode, tokens) for mode, tokens in forwards), key=cache.bytes)
    fraction = deployment.limits.static_fraction or setup.executor.memory.static_fraction.value
    layers = setup.model.num_hidden_layers
    found = Fit(
        capacity=setup.hardware.memory.capacity_gb.value * 1e9,
        static_fraction=fraction,
        weights=weight_bytes(setup, stage),
        cache=cache.bytes(asked),
        asked=asked,
        token_bytes=cache.token_bytes,
        request_bytes=cache.request_bytes,
        peak=peak,
        layers=(len(stage) if stage is not None else deployment.loaded_layers or layers, layers),
    )
    most = {mode: _most_tokens(cache, mode, tokens, found.cache_room) for mode, tokens in forwards}
    return replace(found, most_tokens={mode: most[mode] for mode, tokens in forwards if most[mode] < tokens})


def _most_tokens(cache: Cache, mode: str, tokens: int, room: float) -> int:
    """The largest count up to `tokens` whose contexts find room; a cache grows with the tokens."""
    low, high = 0, tokens + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cache.bytes(cache.asked(mode, middle)) <= room else (low, middle)
    return low
