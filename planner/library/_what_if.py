"""What if? A deployment with fields varied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

from commplan.planner.answers.spelled import duration
from commplan.planner.descriptions.setup import Setup
from commplan.planner.strategies import PLAIN, strategies
from commplan.planner.what_if.crossovers import Crossover, crossovers
from commplan.planner.what_if.evaluation import OWN, OWN_NOTE, PLAN
from commplan.planner.what_if.marginal_answers import Answer
from commplan.planner.what_if.rows import records
from commplan.planner.what_if.sweep import Point, Sweep
from commplan.planner.what_if.varied_answers import varied_answers

from ._asking import Overrides, Path, count_of, in_python, mode_of, name_of, override_texts, read, varied

Vary = Mapping[str, object] | Iterable[str]
"""Values by field, as in {"parallelism.tp": [2, 4, 8]}; a text spells them as `--vary` does."""
Progress = Callable[..., Iterable[Point]]
"""Called with the points and `total`, their number; gives them back, as tqdm does."""


class WhatIf:
    """The points of a sweep, with the plan and every strategy at each."""

    def __init__(self, sweep: Sweep, points: tuple[Point, ...]) -> None:
        self.sweep = sweep
        self.points = points

    @property
    def mode(self) -> str:
        """The forward mode where modes are not varied."""
        return self.sweep.mode

    @property
    def tokens(self) -> int:
        """The token count where neither tokens nor modes are varied."""
        return self.sweep.tokens

    @cached_property
    def crossovers(self) -> tuple[tuple[dict[str, Any], Crossover], ...]:
        """Where another uniform strategy becomes the fastest, for each combination of what is varied beside tokens."""
        if self.sweep.axis_of_tokens is None:
            return ()
        groups: dict[str, list[Point]] = {}
        for point in self.points:
            if point.legal:
                groups.setdefault(repr(_others(point)), []).append(point)
        found = []
        for group in groups.values():
            counts = [point.tokens for point in group]
            evaluator = self.sweep.evaluator(group[0].values)
            found += [(_others(group[0]), c) for c in crossovers(evaluator, group[0].mode, counts)]
        return tuple(found)

    @cached_property
    def answers(self) -> tuple[Answer, ...]:
        """What was found about each setting that was varied."""
        return tuple(varied_answers(self.sweep, self.points))

    @property
    def notes(self) -> tuple[str, ...]:
        """What should be known of the figures."""
        from commplan.planner.cost.collectives import NOTE
        from commplan.planner.search.formats import warnings
        from commplan.planner.search.offers import has_own_kernels

        base = self.sweep.base
        setups = {id(s): s for s in (p.found.server.planner.setup for p in self.points if p.found is not None)}
        return (
            *([f"a link is varied: {NOTE}, and marked `formula`"] if any(a.is_link for a in self.sweep.axes) else []),
            *base.notes,
            *dict.fromkeys(warning for setup in setups.values() for warning in warnings(setup)),
            "no overlap of communication and compute is assumed, but in flags of a server that have it",
            *([OWN_NOTE] if has_own_kernels(base) else []),
        )

    def to_records(self) -> list[dict[str, Any]]:
        """A row for each point and plan (`plan`, and each uniform strategy), as `--csv` writes; None where illegal."""
        return records(self.points)

    def __repr__(self) -> str:
        illegal = sum(not point.legal for point in self.points)
        some = f", {illegal} of them illegal" if illegal else ""
        varied = ", ".join(axis.name for axis in self.sweep.axes)
        return f"<commplan.WhatIf {self.sweep.base.deployment.name}: {len(self.points)} points of {varied}{some}>"

    def _repr_html_(self) -> str:
        from ._table import html_table

        legal = [point.found for point in self.points if point.found is not None]
        uniform = [n for n in (OWN, *strategies()) if n != PLAIN and any(n in found.plans for found in legal)]
        names = [axis.name for axis in self.sweep.axes]
        columns = (*names, "plan", "vs stock", PLAIN, *uniform, "")
        rows = [_cells(point, uniform) for point in self.points]
        base = self.sweep.base
        title = f"{base.deployment.name}: {base.model.name} on {base.hardware.name}"
        return html_table(title, columns, rows, "Columns of strategies are speed-ups over plain all-reduce.")


def _others(point: Point) -> dict[str, Any]:
    return {name: value for name, value in point.values.items() if name != "tokens"}


def _cells(point: Point, uniform: list[str]) -> tuple[object, ...]:
    given = tuple(str(value) for value in point.values.values())
    found = point.found
    if found is None:
        return (*given, *(None for _ in range(3 + len(uniform))), f"illegal: {point.reason}")
    step, plain = (found.plans[name].parts.step_us for name in (PLAN, PLAIN))
    speed_ups = ("-" if (up := found.speed_up(name)) is None else f"{up:.3f}x" for name in uniform)
    return (*given, duration(step), f"{found.over_stock:.3f}x", duration(plain), *speed_ups, "")


@in_python
def what_if(
    deployment: Path,
    *,
    vary: Vary | None = None,
    mode: str | None = None,
    tokens: int | None = None,
    set: Overrides | None = None,
    progress: Progress | None = None,
) -> WhatIf:
    """Vary fields of a deployment: all-reduce, each uniform strategy and the plan at each combination of values.

    vary      values by field, as in {"parallelism.tp": [2, 4, 8], "tokens": "16..16384:x2"}; by default token counts
    mode      the forward mode where modes are not varied, by default the first; `tokens` likewise, the mode's largest
    set       fields of the deployment to override first, as in {"parallelism.tp": 4}
    progress  called with the points and their `total` before they are worked out, as tqdm is

    A value that makes the deployment illegal is a point with the reason, and the sweep goes on. One that no deployment
    can have is an InputError.
    """
    texts = override_texts(set)
    base = read(deployment, texts)
    mode = mode_of(base, mode)
    count = None if tokens is None else count_of(tokens)
    axes = () if vary is None else varied(vary)
    sweep = Sweep.of(name_of(deployment), texts, axes or (_tokens_axis(base, mode),), mode, count, base)
    points = sweep.points()
    return WhatIf(sweep, tuple(points if progress is None else progress(points, total=sweep.size)))


def _tokens_axis(base: Setup, mode: str) -> str:
    first, last = base.deployment.modes[mode].tokens
    counts = sorted({first, last, *(2**k for k in range(40) if first < 2**k < last)})
    return "tokens=" + ",".join(map(str, counts))
