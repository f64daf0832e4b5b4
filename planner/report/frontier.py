"""Time against error: what each amount of quantisation error buys."""

from __future__ import annotations

from math import sqrt
from typing import Any

from ..search.graph import ERROR_UNIT, Plan
from ..strategy.errors import CommplanError
from ..strategy.ops import words_of
from ..what_if.evaluation import PLAN, Evaluation, Evaluator, Priced, Structure
from .chart import Chart, axis, milliseconds
from .palette import strategy_colour
from .study import Study

_STEPS = 12


def frontier_chart(study: Study, mode: str, tokens: int) -> Chart:
    """The fastest plan for each error budget, with the uniform strategies and the plan of the file beside it."""
    points = _frontier(study, mode, tokens)
    found = study.at(mode, tokens)
    plans = _with_quantised(study, found, mode, tokens)
    words = words_of(study.setup.executor.ops, study.setup.deployment.numerics.wire_formats)
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "fastest plan within an error budget",
            "x": [error for error, _, _ in points],
            "y": [step / 1000 for _, step, _ in points],
            "text": [f"{count} {words} boundaries" for _, _, count in points],
            "hovertemplate": "error %{x:.4f}: %{y:.2f} ms, %{text}<extra></extra>",
            "line": {"color": "faint", "width": 1.5, "shape": "hv"},
            "marker": {"size": 6, "color": "muted"},
            "cliponaxis": False,
        }
    ]
    names = [*(n for n in plans if n != PLAN), PLAN]
    for name in names:
        priced = plans[name]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [_error(priced.plan)],
                "y": [priced.parts.step_us / 1000],
                "text": [f"{priced.parts.numerics}; wire times: {priced.parts.provenance_of('communication')}"],
                "hovertemplate": f"{name}: error %{{x:.4f}}, %{{y:.2f}} ms<br>%{{text}}<extra></extra>",
                "cliponaxis": False,
                "marker": {
                    "size": 13 if name == PLAN else 11,
                    "color": strategy_colour(name),
                    "symbol": "diamond" if name == PLAN else "circle",
                },
            }
        )
    most = max([0.01, *(error for error, _, _ in points), *(_error(priced.plan) for priced in plans.values())])
    layout = {
        "xaxis": axis(
            "expected relative RMS error, summed over quantised boundaries",
            range=[-0.02 * most, 1.06 * most],
            tickformat=".2f",
        ),
        "yaxis": axis("step, ms"),
        "hovermode": "closest",
    }
    about = (
        f"{mode.capitalize()} of {tokens:,} tokens. Errors of boundaries add as squares; each point is the exact "
        "optimum within its budget, with quantised ops allowed whatever the deployment says."
    )
    legend = [(name, strategy_colour(name)) for name in (PLAN, *(n for n in names if n != PLAN))]
    return Chart(_finding(points, tokens, mode, words), about, traces, layout, 340, legend)


def _with_quantised(study: Study, found: Evaluation, mode: str, tokens: int) -> dict[str, Priced]:
    """The named plans, with the quantised strategies that the deployment's own numerics class leaves out."""
    try:
        setup = study.load("numerics.loosest=quantized", "numerics.error_budget=null")
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
    setup = study.load("numerics.loosest=quantized", f"numerics.error_budget={budget}")
    return _best(Evaluator(setup, structure), mode, tokens)


def _within_class(study: Study, mode: str, tokens: int) -> tuple[float, float, int] | None:
    """The fastest plan that quantises nothing."""
    try:
        return _best(Evaluator(study.load("numerics.loosest=reordered", "numerics.error_budget=null")), mode, tokens)
    except CommplanError:
        return None


def _best(evaluator: Evaluator, mode: str, tokens: int) -> tuple[float, float, int]:
    planner = evaluator.planner(mode)
    plan = planner.best(tokens)
    count = sum(edge.op.kind.is_quantized for edge in plan.edges)
    return _error(plan), planner.step_us(plan, tokens), count


def _error(plan: Plan) -> float:
    return sqrt(sum(count * edge.squared_error for edge, count in plan.counted) / ERROR_UNIT)


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
