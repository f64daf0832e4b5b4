"""The setting under which vLLM comes nearest to a plan, by the times that the plan was made by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

from ..answers.from_file import plan_of
from ..answers.to_file import collective_provenance
from ..descriptions.setup import Setup
from ..search.graph import Plan
from ..search.planning import ModePlanner
from ..search.ranges import PlannedRange
from ..search.stock import StockPlanner
from ..strategy.errors import InputError
from ..strategy.file import StrategyFile
from ..strategy.op_kinds import ALL_REDUCE
from ..strategy.ops import Op
from .told import FLASHINFER, SWITCHES, SYMMETRIC, Setting, Switch, can_fuse, row_bytes, rules_under

_ALIKE = 2e-4  # a share of the step below which two settings are as good, so the one that says less stands
_UNMEASURED = ("formula", "assumed")
_EVERY = 10**9  # more tokens than any forward has


Given = tuple[StrategyFile, str]
"""A strategy file, and its name."""


@dataclass
class _Mode:
    """One forward mode: its plan, and where it is looked at."""

    setup: Setup
    mode: str
    given: Given | None = None
    planner: ModePlanner = field(init=False)
    ranges: list[PlannedRange] = field(init=False)
    _servers: dict[Setting, StockPlanner] = field(default_factory=dict)
    _us: dict[tuple[Setting, int], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.planner = ModePlanner(self.setup, self.mode)
        self.ranges = self.planner.ranges() if self.given is None else list(self._of(*self.given))

    def _of(self, strategy: StrategyFile, file: str) -> Iterator[PlannedRange]:
        """The ranges of a strategy file."""
        if self.mode not in strategy.modes:
            raise InputError(
                "the deployment has this mode, and the file no plan of it", file=file, field=f"modes.{self.mode}"
            )
        for chosen in strategy.modes[self.mode]:
            plan, (first, last) = plan_of(self.planner, strategy, chosen.last, file)
            yield PlannedRange(first, last, plan, 0.0)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Powers of two, and both sides of every edge between ranges and of every limit that vLLM has by default."""
        first, last = self.ranges[0].first, self.ranges[-1].last
        powers = {2**k for k in range(last.bit_length())}
        edges = {end for r in self.ranges for end in (r.first, r.last)}
        limits = {limit + side for limit in _limits(Setting(), self.setup) for side in (0, 1)}
        return tuple(sorted(count for count in powers | edges | limits if first <= count <= last))

    def server(self, setting: Setting) -> StockPlanner:
        """vLLM once it is told a setting."""
        if setting not in self._servers:
            self._servers[setting] = StockPlanner(self.planner, rules_under(setting, self.setup))
        return self._servers[setting]

    def planned_us(self, tokens: int) -> float:
        """A step of the plan."""
        return self.planner.step_us(self.planned(tokens), tokens)

    def planned(self, tokens: int) -> Plan:
        """The plan of the range that holds a count."""
        return next(r.plan for r in self.ranges if r.first <= tokens <= r.last)

    def us(self, setting: Setting, tokens: int) -> float:
        """A step of vLLM under a setting: a limit decides of a count but whether it is fused."""
        if setting.fused_tokens is not None:
            setting = replace(setting, fused_tokens=_EVERY if tokens <= setting.fused_tokens else 0)
        if (setting, tokens) not in self._us:
            self._us[setting, tokens] = self.server(setting).default(tokens, self.planned(tokens)).step_us
        return self._us[setting, tokens]


@dataclass(frozen=True)
class Step:
    """Steps at one token count: of the plan, of vLLM by its defaults, of vLLM as it is told."""

    mode: str
    first: int
    last: int
    planned_us: float
    default_us: float
    told_us: float
    source: str  # of the wire times, as told


@dataclass(frozen=True)
class Difference:
    """Token counts and layers (none outside the layers) at which vLLM as told runs another op than the plan."""

    mode: str
    tokens: tuple[int, int]
    boundary: str
    layers: tuple[int, ...]
    planned: str
    runs: str
    slower: float  # the share of the step that this setting loses at the last of these counts, all places together


@dataclass(frozen=True)
class Told:
    """What to tell vLLM, what comes of it, and where it still differs from the plan.

    largest  the largest forward that was priced: a limit at it says nothing of what lies above
    """

    setting: Setting
    steps: list[Step]
    differences: list[Difference]
    largest: int
    default_tokens: int  # up to which it fuses by default; 0: nothing
    unpriced: tuple[str, ...]  # kernels that it has here and that have no times: the next in its order stands in
    limit_source: str | None  # of the wire times at the limit; None without one

    @property
    def by_formula(self) -> bool:
        """True where what it is told rests on times from no table."""
        sources = [step.source for step in self.steps] if self.setting.off else []
        return any(source in _UNMEASURED for source in (*sources, self.limit_source))


def best_setting(setup: Setup, given: Given | None = None) -> Told:
    """The setting whose steps are nearest to the plan's over all modes; of those as near the one that says least.

    given  the plan; without it a new one is made
    """
    modes = [_Mode(setup, name, given) for name in setup.deployment.modes]
    scores = {setting: _score(modes, setting) for setting in _settings(modes, setup)}
    least = min(scores.values())
    near = [s for s in scores if scores[s] <= least + _ALIKE]
    chosen = min(near, key=lambda s: (s.num_told, scores[s], s.fused_tokens or 0))
    if chosen.fused_tokens:
        chosen = _at_the_crossing(modes, chosen)
    steps = [_step(mode, r, chosen) for mode in modes for r in mode.ranges]
    differences = [d for mode in modes for d in _differences(mode, chosen)]
    rules = rules_under(Setting(), setup).fusions
    default = max(((rule.max_message_bytes or 0) // row_bytes(setup) for rule in rules), default=0)
    largest = max(modes, key=lambda mode: mode.counts[-1])
    unpriced, source = _unpriced(setup, largest.planner), _source_at(largest, chosen, chosen.fused_tokens)
    return Told(chosen, steps, differences, largest.counts[-1], default, unpriced, source)


def _settings(modes: list[_Mode], setup: Setup) -> Iterator[Setting]:
    """Everything that vLLM can be told; kernels without a price here are switched off where they would be reached."""
    limits: list[int | None] = [None]
    if can_fuse(setup):
        limits += [0, *sorted({count for mode in modes for count in mode.counts})]
    there = [switch for switch in SWITCHES if _is_priced(switch, setup, modes[0].planner)]
    for size in range(len(there) + 1):
        for off in combinations(there, size):
            silent = FLASHINFER in off and SYMMETRIC not in there
            for limit in limits:
                yield Setting((*off, SYMMETRIC) if silent else off, limit)


def _is_priced(switch: Switch, setup: Setup, planner: ModePlanner) -> bool:
    """True where vLLM may have a kernel of the switch here and there is a time for it."""
    names = [name for name in switch.impls if setup.executor.impls[name].stock_only is None]
    return any(_has_times(name, setup, planner) for name in names)


def _has_times(name: str, setup: Setup, planner: ModePlanner) -> bool:
    collectives, dtype = planner.costs.collectives, setup.deployment.dtypes.activations
    needed = setup.executor.impls[name].needs_table
    return not needed or bool(collectives.table_sizes(ALL_REDUCE.name, name, dtype, "tp"))


def _unpriced(setup: Setup, planner: ModePlanner) -> tuple[str, ...]:
    rules = rules_under(Setting(), setup).sums
    return tuple(name for name in dict.fromkeys(r.impl for r in rules) if not _has_times(name, setup, planner))


def _score(modes: list[_Mode], setting: Setting) -> float:
    """How much longer than the plan's its steps take: the mean over counts, then over modes."""
    return sum(
        sum(mode.us(setting, t) / mode.planned_us(t) - 1 for t in mode.counts) / len(mode.counts) for mode in modes
    ) / len(modes)


def _at_the_crossing(modes: list[_Mode], setting: Setting) -> Setting:
    """The setting with its limit moved to the last count at which the fused kernel is the quicker one."""
    assert setting.fused_tokens is not None
    mode = max(modes, key=lambda each: each.counts[-1])
    ahead = setting.fused_tokens
    behind = next((count for count in mode.counts if count > ahead), None)
    if behind is None:
        return setting
    fused, apart = Setting(setting.off, _EVERY), Setting(setting.off, 0)
    while behind - ahead > 1:
        middle = (ahead + behind) // 2
        is_ahead = mode.us(fused, middle) <= mode.us(apart, middle)
        ahead, behind = (middle, behind) if is_ahead else (ahead, middle)
    return Setting(setting.off, ahead)


def _source_at(mode: _Mode, setting: Setting, tokens: int | None) -> str | None:
    """Where the wire times at a count come from."""
    if not tokens:
        return None
    return collective_provenance(mode.planner, mode.server(setting).default(tokens).plan, tokens)


def _step(mode: _Mode, of: PlannedRange, setting: Setting) -> Step:
    last = of.last
    planned_us, default_us, told_us = mode.planned_us(last), mode.us(Setting(), last), mode.us(setting, last)
    source = _source_at(mode, setting, last) or ""
    return Step(mode.mode, of.first, last, planned_us, default_us, told_us, source)


# ---- differences -----------------------------------------------------------------------------------------------------


def _differences(mode: _Mode, setting: Setting) -> Iterator[Difference]:
    """Where the ops differ, range by range; a range is cut where vLLM changes its kernel."""
    found: dict[tuple[str, tuple[int, ...], str, str], list[tuple[int, int]]] = {}
    for first, last in _spans(mode, setting):
        planned, runs = mode.planned(last), mode.server(setting).default(last).plan
        for key in _unlike(planned, runs, mode.setup.hardware.backend):
            spans = found.setdefault(key, [])
            if spans and spans[-1][1] + 1 == first:
                spans[-1] = (spans[-1][0], last)
            else:
                spans.append((first, last))
    for (boundary, layers, planned_op, run), spans in found.items():
        for span in spans:
            lost = mode.us(setting, span[1]) / mode.planned_us(span[1]) - 1
            yield Difference(mode.mode, span, boundary, layers, planned_op, run, lost)


def _spans(mode: _Mode, setting: Setting) -> Iterator[tuple[int, int]]:
    first, last = mode.ranges[0].first, mode.ranges[-1].last
    limits = {limit for limit in _limits(setting, mode.setup) if first <= limit < last}
    ends = sorted({r.last for r in mode.ranges} | limits)
    for end in ends:
        yield first, end
        first = end + 1


def _limits(setting: Setting, setup: Setup) -> set[int]:
    """The last token counts that its kernels take."""
    rules, row = rules_under(setting, setup), row_bytes(setup)
    return {r.max_message_bytes // row for r in (*rules.sums, *rules.fusions) if r.max_message_bytes is not None}


def _unlike(planned: Plan, runs: Plan, backend: str) -> Iterator[tuple[str, tuple[int, ...], str, str]]:
    for name in ("embed_out", "head_in"):
        ops = [_words(getattr(plan, name).op, backend) for plan in (planned, runs)]
        if ops[0] != ops[1]:
            yield name, (), ops[0], ops[1]
    layers: dict[tuple[str, str, str], list[int]] = {}
    for index, pair in enumerate(zip(planned.layers, runs.layers, strict=True)):
        for edge, theirs in zip(*pair, strict=True):
            ops = [_words(each.op, backend) for each in (edge, theirs)]
            if ops[0] != ops[1]:
                layers.setdefault((edge.boundary, ops[0], ops[1]), []).append(index)
    for (boundary, op, run), indices in layers.items():
        yield boundary, tuple(indices), op, run


def _words(op: Op, backend: str) -> str:
    return f"{op.name} by {op.impl or backend}" if op.kind.is_collective else op.name
