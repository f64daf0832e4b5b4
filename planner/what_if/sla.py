"""The largest load, and the fewest devices, that keep a time to first token and a time between tokens.

A time to first token is that of the prefill that holds the request, or of as many as its tokens need; a time between
tokens that of a decode step. Both are those of steps as modelled, so a lower bound: no queue, no scheduler, no other
work between steps. Where steps were measured the model is scaled by them; where none was, the load is given for steps
that take as much longer as published ones did at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from ..descriptions.setup import Setup
from ..fit.peaks import peak_activation_bytes, with_logits
from ..fit.verdict import fit
from ..fit.words import reason
from ..search.graph import Plan
from ..search.planning import ModePlanner
from ..search.stock import StockPlanner
from ..strategy.errors import CommplanError, NoLegalPlanError
from .memory import tp_sizes, with_tp

SLOWEST = 2.9
"""How much longer than modelled published steps took at most (planner/search/measured_steps.py); at least 1.6."""
Ends = Literal["limit", "memory", "span"]
Mode = Literal["prefill", "decode"]
LIMIT_NAMES: dict[Mode, str] = {"prefill": "TTFT", "decode": "ITL"}


@dataclass(frozen=True)
class Limits:
    """What is asked, in us; None where nothing is. `requests`: so many decode at once."""

    ttft_us: float | None = None
    itl_us: float | None = None
    requests: int = 1

    def of(self, mode: Mode) -> float | None:
        """The limit of a mode."""
        return self.ttft_us if mode == "prefill" else self.itl_us

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Modes that are asked about."""
        return tuple(mode for mode in LIMIT_NAMES if self.of(mode) is not None)


@dataclass(frozen=True)
class Load:
    """The largest load of a mode that keeps its limit.

    tokens    rows of the forward; 0 where none keeps the limit
    requests  that they are of
    time_us   to first token, or between tokens
    ended_by  what a larger load runs into; `least` is the shortest time of any load, where none keeps the limit
    slow      tokens, where steps take SLOWEST as long as modelled; None where steps were measured
    stock     tokens of the stock server
    """

    mode: Mode
    tokens: int
    requests: int
    time_us: float
    ended_by: Ends
    slow: int | None
    stock: int | None
    measured: bool


@dataclass(frozen=True)
class AtSize:
    """The loads of one number of devices, or why there are none."""

    devices: int
    loads: dict[Mode, Load] = field(default_factory=dict)
    reason: str = ""

    def keeps(self, limits: Limits, slow: bool = False) -> bool:
        """True where every limit is kept by one request of prefill and so many of decode."""
        if self.reason:
            return False
        for mode, load in self.loads.items():
            wanted = limits.requests if mode == "decode" else 1
            tokens = load.tokens if not slow or load.slow is None else load.slow
            share = load.requests / load.tokens if load.tokens else 0
            if tokens == 0 or (mode == "decode" and tokens * share < wanted):
                return False
        return True


def missing(setup: Setup, limits: Limits) -> list[str]:
    """What a deployment lacks to answer, with the way to say it."""
    found = []
    modes = setup.deployment.modes
    example = {
        "prefill": "{tokens: [1, 16384], sequence_tokens: 4096}",
        "decode": "{tokens: [1, 256], context_tokens: 4096}",
    }
    for mode in limits.modes:
        if mode not in modes:
            why = f"{LIMIT_NAMES[mode]} needs the mode {mode}, and the deployment has {', '.join(modes)}"
            if mode == "decode" and "target_verify" in modes:
                why += "; of a target_verify step it is not known how many draft tokens are accepted"
            found.append(f"{why}: --set 'modes.{mode}={example[mode]}'")
    return found


def loads_of(setup: Setup, limits: Limits) -> dict[Mode, Load]:
    """The largest load of each mode that is asked about."""
    return {mode: _Question(setup, mode, limits).load(stock=True) for mode in limits.modes}


def by_devices(base: Setup, limits: Limits, load: Callable[..., Setup]) -> Iterator[AtSize]:
    """Every number of devices of the machine, the smallest first.

    Steps were measured on one of them: on the others they are as much longer than modelled.
    """
    factors = {mode: _Question(base, mode, limits).factors for mode in limits.modes}
    for tp in tp_sizes(base):
        devices = tp * base.parallelism.pp
        try:
            setup = load(*with_tp(base, tp))
            bare = fit(setup)
            if bare.misses == "weights":
                yield AtSize(devices, reason=reason(bare))
                continue
            questions = {mode: _Question(setup, mode, limits, factors[mode]) for mode in limits.modes}
            yield AtSize(devices, {mode: question.load(stock=False) for mode, question in questions.items()})
        except CommplanError as error:
            yield AtSize(devices, reason=error.message)


class _Question:
    """One mode of a setup against its limit."""

    def __init__(self, setup: Setup, mode: Mode, limits: Limits, factors: dict[int, float] | None = None) -> None:
        self.setup, self.mode, self.limit_us = setup, mode, limits.of(mode) or 0.0
        self.spec = setup.deployment.modes[mode]
        self.planner = ModePlanner(setup, mode, _factors=factors)
        self.plan = cache(self._plan)
        self.time = cache(self._time)
        self.has_room = cache(self._has_room)

    @property
    def factors(self) -> dict[int, float] | None:
        """How much longer than modelled measured steps took; None where none was measured."""
        self.planner.compute_factor(self.spec.tokens[1])
        return self.planner._factors

    def load(self, stock: bool) -> Load:
        self.planner.best(self.spec.tokens[0])  # where not even that is legal, this says why
        measured = self.spec.measured_step_us is not None
        tokens = self._largest(lambda t: self.has_room(t) and self.time(t) <= self.limit_us)
        slow = (
            None if measured else self._largest(lambda t: self.has_room(t) and SLOWEST * self.time(t) <= self.limit_us)
        )
        if tokens == 0:
            least = min((count for count in self._counts() if self.has_room(count)), key=self.time, default=0)
            ended: Ends = "limit" if least else "memory"
            return Load(self.mode, 0, 0, self.time(least) if least else 0.0, ended, slow, None, measured)
        ended = "span" if tokens == self.spec.tokens[1] else "limit" if self.has_room(tokens + 1) else "memory"
        return Load(
            self.mode,
            tokens,
            self._requests(tokens),
            self.time(tokens),
            ended,
            slow,
            self._of_stock() if stock else None,
            measured,
        )

    def _of_stock(self) -> int:
        server = StockPlanner(self.planner)
        step = cache(lambda tokens: server.prices(tokens).stock.step_us)
        return self._largest(lambda t: self.has_room(t) and step(t) * self._forwards(t) <= self.limit_us)

    def _largest(self, keeps: Callable[[int], bool]) -> int:
        """The largest count that does: the last of a grid, and from there on bisected to the next that does not."""
        counts = self._counts()
        index = next((i for i in reversed(range(len(counts))) if keeps(counts[i])), None)
        if index is None:
            return 0
        low, high = counts[index], counts[index + 1] if index + 1 < len(counts) else counts[index] + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if keeps(middle) else (low, middle)
        return low

    def _counts(self) -> list[int]:
        """Token counts to look at: powers of two, the ends of the span, and whole requests of a prefill."""
        first, last = self.spec.tokens
        length = self.spec.sequence_tokens or 1
        found = {first, last, *(2**k for k in range(40)), *(length * 2**k for k in range(20))}
        return sorted(count for count in found if first <= count <= last)

    def _plan(self, tokens: int) -> Plan | None:
        try:
            return self.planner.best(tokens)
        except NoLegalPlanError:
            return None

    def _time(self, tokens: int) -> float:
        """To first token, or between tokens; infinite where no plan is legal."""
        plan = self.plan(tokens)
        return float("inf") if plan is None else self.planner.step_us(plan, tokens) * self._forwards(tokens)

    def _forwards(self, tokens: int) -> int:
        """Prefills that a request needs before its first token."""
        return -(-(self.spec.sequence_tokens or 1) // tokens) if self.mode == "prefill" else 1

    def _requests(self, tokens: int) -> int:
        return max(1, tokens // (self.spec.sequence_tokens or 1)) if self.mode == "prefill" else tokens

    def _has_room(self, tokens: int) -> bool:
        plan = self.plan(tokens)
        if plan is None:
            return False
        peak = float(peak_activation_bytes(self.planner, plan, tokens))
        return fit(self.setup, [(self.mode, tokens)], with_logits(self.setup, [(self.mode, tokens, peak, peak)])).fits
