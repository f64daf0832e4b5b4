"""The points of a sweep: the cartesian product of its axes, each evaluated, none of them able to stop the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

from ..answers.spelled import duration
from ..descriptions.loader import load_setup
from ..descriptions.setup import Setup
from ..fit.verdict import Fit
from ..fit.words import reason as why_not
from ..strategy.errors import CommplanError, InputError
from ..strategy.yaml_file import flow_text
from .evaluation import PLAN, Evaluation, Evaluator, Structure
from .fields import FORWARD_FIELDS, PRICES, Axis, Vary, read_axes
from .memory import fit_at

MOST_POINTS = 100_000


@dataclass(frozen=True, repr=False)
class Point:
    """One combination of values: what was found there, or the reason why it is illegal."""

    values: dict[str, Any]  # by the names the user gave
    mode: str
    tokens: Any
    found: Evaluation | None
    reason: str
    memory: Fit | None = None  # of the plan; of a point that does not fit too
    memory_of: dict[str, Fit] = field(default_factory=dict)  # by the names of the plans

    @property
    def legal(self) -> bool:
        """True where the deployment is legal, has a plan, and fits its devices."""
        return self.found is not None

    def __repr__(self) -> str:
        where = ", ".join(f"{name} {value}" for name, value in self.values.items())
        if self.found is None:
            return f"<Point {where}: illegal, {self.reason}>"
        step_us = self.found.plans[PLAN].parts.step_us
        return f"<Point {where}: {duration(step_us)}, {self.found.over_stock:.3f}x over the stock server>"


@dataclass
class Sweep:
    """A deployment with axes. Setups and planners are kept, so that token counts of one setup share their work."""

    deployment: str
    overrides: tuple[str, ...]
    axes: tuple[Axis, ...]
    base: Setup
    mode: str
    given_tokens: int | None = None  # of every mode; None: the mode's largest
    _evaluators: dict[tuple[str, ...], Evaluator | CommplanError] = field(default_factory=dict)
    _structures: dict[tuple[str, ...], Structure] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        deployment: str,
        overrides: tuple[str, ...],
        vary: tuple[Vary, ...],
        mode: str,
        tokens: int | None,
        base: Setup,
    ) -> Sweep:
        """A sweep; InputError for a field that does not exist. What is varied, and given too, is given for answers."""
        axes = read_axes(vary, tuple(base.deployment.modes), base.file)
        size = prod(len(axis.values) for axis in axes)
        if size > MOST_POINTS:
            raise InputError(f"a sweep has at most {MOST_POINTS} points", file="--vary", field="points", value=size)
        return cls(deployment, overrides, axes, base, mode, tokens)

    @property
    def size(self) -> int:
        """Number of points."""
        return prod(len(axis.values) for axis in self.axes)

    @property
    def tokens(self) -> int:
        """The token count where neither tokens nor modes are varied."""
        return self.tokens_of(self.mode)

    def tokens_of(self, mode: str) -> int:
        """The count at which a mode is asked where tokens are not varied."""
        return self.base.deployment.modes[mode].tokens[1] if self.given_tokens is None else self.given_tokens

    @property
    def axis_of_tokens(self) -> Axis | None:
        """The axis of token counts, if there is one."""
        return next((axis for axis in self.axes if axis.field == "tokens"), None)

    def points(self) -> Iterator[Point]:
        """All points, the last axis changing fastest."""
        for values in product(*(axis.values for axis in self.axes)):
            yield self.point(dict(zip((axis.name for axis in self.axes), values, strict=True)))

    def point(self, values: dict[str, Any]) -> Point:
        """One combination of values by the axes' names."""
        mode = values.get("mode", self.mode)
        tokens = values.get("tokens", self.tokens_of(mode))
        found, reason = None, ""
        memory: dict[str, Fit] = {}
        try:
            evaluator = self.evaluator(values)
            found = evaluator.at(mode, tokens)
            memory = {name: fit_at(evaluator.setup, mode, tokens, found, name) for name in found.plans}
            if not memory[PLAN].fits:
                found, reason = None, why_not(memory[PLAN])
        except CommplanError as error:
            where = f"{error.field}: " if error.field else ""
            shown = f" (got {error.value!r})" if error.value is not None else ""
            reason = f"{where}{error.message}{shown}"
        return Point(values, mode, tokens, found, reason, memory.get(PLAN), memory)

    def evaluator(self, values: dict[str, Any]) -> Evaluator:
        """The evaluator of a combination of values; raises what makes it illegal, each time it is asked."""
        varied = [axis for axis in self.axes if axis.field not in FORWARD_FIELDS]
        texts = tuple(f"{axis.field}={flow_text(values[axis.name])}" for axis in varied)
        known = self._evaluators.get(texts)
        if known is None:
            try:
                known = Evaluator(self._setup(texts), self._structure(texts))
            except CommplanError as error:
                known = error
            self._evaluators[texts] = known
        if isinstance(known, CommplanError):
            raise known
        return known

    def _setup(self, texts: tuple[str, ...]) -> Setup:
        return load_setup(self.deployment, (*self.overrides, *texts)) if texts else self.base

    def _structure(self, texts: tuple[str, ...]) -> Structure:
        """Setups that differ in prices alone have the same graphs."""
        shape = tuple(text for text in texts if not text.startswith(PRICES))
        return self._structures.setdefault(shape, Structure())
