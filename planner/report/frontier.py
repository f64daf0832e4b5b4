"""Time against error: what each amount of quantisation error buys."""

from __future__ import annotations

from ..strategy.errors import CommplanError
from ..strategy.ops import words_of
from ..what_if.evaluation import NO_BUDGET, PLAN, Evaluation, Evaluator, Priced, Structure
from .axis import linear
from .chart import Chart, Key, milliseconds
from .palette import strategy_colour
from .study import Study
from .table import Table
from .xy_plot import Series, XYPlot

_STEPS = 12


def frontier_chart(study: Study, mode: str, tokens: int) -> Chart:
    """The fastest plan for each error budget, with the uniform strategies and the plan of the file beside it."""
    points = _frontier(study, mode, tokens)
    plans = _with_quantised(study, study.at(mode, tokens), mode, tokens)
    words = words_of(study.setup.executor.ops, study.setup.deployment.numerics.wire_formats)
    names = [*(n for n in plans if n != PLAN), PLAN]
    series = [Series(_FRONTIER, [(error, step / 1000) for error, step, _ in points], stairs=True)]
    for name in names:
        key = Key(name, strategy_colour(name), marker="diamond" if name == PLAN else "circle")
        series.append(Series(key, [(plans[name].plan.error, plans[name].parts.step_us / 1000)]))
    most = max([0.01, *(error for each in series for error, _ in each.points)])
    steps = [step for each in series for _, step in each.points if step is not None]
    low, high = min(steps), max(steps)
    room = max(0.08 * (high - low), 0.001 * high)
    plot = XYPlot(
        series,
        linear(
            "expected relative RMS error, summed over quantised boundaries",
            -0.02 * most, 1.06 * most, lambda value, decimals: f"{value:.{max(2, decimals)}f}",
        ),
        linear("step, ms", low - room, high + room, lambda value, decimals: f"{value:,.{decimals}f}"),
        [series[-1].key, *(each.key for each in series[:-1])],
        by_x=False,
    )  # fmt: skip
    about = (
        f"{mode.capitalize()} of {tokens:,} tokens. Errors of boundaries add as squares; each point is the exact "
        "optimum within its budget, with quantised ops allowed whatever the deployment says."
    )
    table = _table(mode, tokens, points, plans, names, f"{words} boundaries")
    return Chart(_finding(points, tokens, mode, words), about, plot, [table])


_FRONTIER = Key("fastest plan within an error budget", "var(--muted)", 1.5, marker="circle")


def _table(
    mode: str,
    tokens: int,
    points: list[tuple[float, float, int]],
    plans: dict[str, Priced],
    names: list[str],
    counted: str,
) -> Table:
    """A row per point, in the order of the series."""
    rows = [[_FRONTIER.name, f"{error:.4f}", milliseconds(step), f"{count}", "–", "–"] for error, step, count in points]
    for name in names:
        plan, parts = plans[name].plan, plans[name].parts
        wire = parts.provenance_of("communication")
        count = f"{plan.num_quantised}"
        rows.append([name, f"{plan.error:.4f}", milliseconds(parts.step_us), count, parts.numerics, wire])
    columns = ["plan", "error", "step", counted, "numerics", "wire times from"]
    title = f"{mode.capitalize()} of {tokens:,} tokens: step and error"
    return Table(title, columns, rows, frozenset({0, 4, 5}))


def _with_quantised(study: Study, found: Evaluation, mode: str, tokens: int) -> dict[str, Priced]:
    """The named plans, with the quantised strategies that the deployment's own numerics class leaves out."""
    try:
        setup = study.load("numerics.loosest=quantized", *NO_BUDGET)
        free = Evaluator(setup).at(mode, tokens).plans
    except CommplanError:
        return found.plans
    return {name: priced for name, priced in free.items() if name not in found.plans} | found.plans


def _frontier(study: Study, mode: str, tokens: int) -> list[tuple[float, float, int]]:
    """(error, step in us, quantised boundaries) of the fastest plan, by growing budget."""
    structure = Structure()
    try:
        free = _within(study, mode, tokens, "null", structure)
    except CommplanError:
        free = None
    exact = _within_class(study, mode, tokens)
    points = [] if exact is None else [exact]
    if free is None or free[2] == 0:
        return points
    budgets = [free[0] * k / _STEPS for k in range(1, _STEPS)]
    for budget in budgets:
        try:
            point = _within(study, mode, tokens, repr(budget), structure)
        except CommplanError:  # less than one quantised boundary costs
            continue
        if not points or point[1] < points[-1][1]:
            points.append(point)
    return [*points, free]


def _within(study: Study, mode: str, tokens: int, budget: str, structure: Structure) -> tuple[float, float, int]:
    setup = study.load("numerics.loosest=quantized", *NO_BUDGET, f"numerics.error_budget={budget}")
    return _best(Evaluator(setup, structure), mode, tokens)


def _within_class(study: Study, mode: str, tokens: int) -> tuple[float, float, int] | None:
    """The fastest plan that quantises nothing."""
    try:
        return _best(Evaluator(study.load("numerics.loosest=reordered", *NO_BUDGET)), mode, tokens)
    except CommplanError:
        return None


def _best(evaluator: Evaluator, mode: str, tokens: int) -> tuple[float, float, int]:
    planner = evaluator.planner(mode)
    plan = planner.best(tokens)
    return plan.error, planner.step_us(plan, tokens), plan.num_quantised


def _finding(points: list[tuple[float, float, int]], tokens: int, mode: str, words: str) -> str:
    where = f"At {tokens:,} tokens of {mode}"
    if len(points) < 2 or points[-1][1] > 0.998 * points[0][1]:
        return f"{where} {words} buys nothing: no error makes a faster step"
    saved = points[0][1] - points[-1][1]
    half = next(p for p in points if points[0][1] - p[1] >= saved / 2)
    return (
        f"{where} {words} buys {milliseconds(saved)} ({saved / points[0][1]:.1%}) for an error of {points[-1][0]:.3f}; "
        f"half of it costs {half[0]:.3f}"
    )
