"""Which decisions differ between two strategy files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from ..strategy.file import RangePlan, StrategyFile
from ..strategy.file.legality import places
from ..strategy.file.writing import runs_text
from ..strategy.yaml_file import flow_text

Price = Callable[[str, int], float | None]
"""The step of a file at a mode and token count, in us."""


@dataclass(frozen=True, slots=True)
class Change:
    """Over [first, last] tokens of a mode, these layers have another op at a boundary (layers None: outside them)."""

    mode: str
    first: int
    last: int
    layers: str | None
    boundary: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Steps:
    """The step under either file at the last token count of a range that both plan; None where nobody can say."""

    mode: str
    first: int
    last: int
    before_us: float | None
    after_us: float | None

    @property
    def change_us(self) -> float | None:
        """How much longer the step is after than before."""
        return None if self.before_us is None or self.after_us is None else self.after_us - self.before_us


def steps(a: StrategyFile, b: StrategyFile, before: Price, after: Price) -> list[Steps]:
    """Both steps in every range that no file cuts."""
    return [
        Steps(mode, first, last, before(mode, last), after(mode, last))
        for mode in a.modes
        if mode in b.modes
        for first, last in _segments(a.modes[mode], b.modes[mode])
        if _find(a.modes[mode], first) is not None and _find(b.modes[mode], first) is not None
    ]


def headers(a: StrategyFile, b: StrategyFile) -> list[tuple[str, str, str]]:
    """Field, value in a, value in b, of everything outside the decisions that differs."""
    pairs = [
        ("model", a.model.name, b.model.name),
        ("model.fingerprint", a.model.fingerprint, b.model.fingerprint),
        ("hardware", a.hardware.name, b.hardware.name),
        ("hardware.fingerprint", a.hardware.fingerprint, b.hardware.fingerprint),
        ("deployment", a.deployment.name, b.deployment.name),
        ("deployment.fingerprint", a.deployment.fingerprint, b.deployment.fingerprint),
        *((f"overrides.{name}", x, y) for name, x, y in _overrides(a, b)),
        ("executor", a.executor, b.executor),
        *(
            (f"parallelism.{name}", str(getattr(a.parallelism, name)), str(getattr(b.parallelism, name)))
            for name in ("tp", "attn_dp", "ep", "moe_backend", "pp")
        ),
        ("numerics", a.numerics, b.numerics),
    ]
    return [(name, x, y) for name, x, y in pairs if x != y]


def _overrides(a: StrategyFile, b: StrategyFile) -> Iterator[tuple[str, str, str]]:
    """Fields that one file overrides otherwise than the other; the executor has a line of its own."""
    for field in dict.fromkeys([*a.overrides, *b.overrides]):
        if field != "executor":
            x, y = (flow_text(file.overrides[field]) if field in file.overrides else "-" for file in (a, b))
            yield field, x, y


def changes(a: StrategyFile, b: StrategyFile) -> Iterator[Change]:
    """Every decision that differs, over the token counts that both files plan or only one does."""
    for mode in dict.fromkeys([*a.modes, *b.modes]):
        for first, last in _segments(a.modes.get(mode, ()), b.modes.get(mode, ())):
            before, after = _find(a.modes.get(mode, ()), first), _find(b.modes.get(mode, ()), first)
            if before is None or after is None:
                missing, there = "not planned", "planned"
                yield Change(
                    mode,
                    first,
                    last,
                    None,
                    "",
                    missing if before is None else there,
                    missing if after is None else there,
                )
            elif before is not after:
                yield from _compare(mode, first, last, before, after)


def _segments(a: tuple[RangePlan, ...], b: tuple[RangePlan, ...]) -> list[tuple[int, int]]:
    cuts = sorted({r.first for r in (*a, *b)} | {r.last + 1 for r in (*a, *b)})
    return [(x, y - 1) for x, y in pairwise(cuts)]


def _find(ranges: tuple[RangePlan, ...], tokens: int) -> RangePlan | None:
    return next((r for r in ranges if r.first <= tokens <= r.last), None)


def _compare(mode: str, first: int, last: int, before: RangePlan, after: RangePlan) -> Iterator[Change]:
    old = {(layer, boundary): str(op) for layer, boundary, op in places(before)}
    new = {(layer, boundary): str(op) for layer, boundary, op in places(after)}
    grouped: dict[tuple[str, str, str], list[int | None]] = {}
    for place in dict.fromkeys([*old, *new]):
        x, y = old.get(place, "no such layer"), new.get(place, "no such layer")
        if x != y:
            grouped.setdefault((place[1], x, y), []).append(place[0])
    for (boundary, x, y), layers in grouped.items():
        numbers = [layer for layer in layers if layer is not None]
        yield Change(mode, first, last, runs_text(numbers) if numbers else None, boundary, x, y)
