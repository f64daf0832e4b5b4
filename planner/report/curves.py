"""Speed-up over plain all-reduce by token count: one line per strategy, the plan in ink, crossovers marked."""

from __future__ import annotations

from math import log10
from typing import Any

from ..strategies import PLAIN
from ..what_if.crossovers import Crossover
from ..what_if.evaluation import PLAN, Evaluation, short_reason
from .chart import Chart, axis, milliseconds, token_ticks
from .palette import STOCK, STOCK_COLOUR, STOCK_FLAG, strategy_colour
from .study import Study


def speed_up_chart(study: Study, mode: str) -> Chart:
    """The chart of a mode."""
    curve = study.evaluations(mode)
    counts = [count for count, _ in curve]
    names = [name for name in _names(curve) if name not in (PLAIN, PLAN)]
    crossings = study.crossovers(mode)
    # The plan lies below the others, broader, so that the strategy it coincides with shows on top of it.
    servers = _servers(curve)
    traces = [_line(PLAN, curve), _line(PLAIN, curve), *servers, *(_line(name, curve) for name in names)]
    highest = max(value for trace in traces for value in trace["y"] if value is not None)
    lowest = min(value for trace in traces for value in trace["y"] if value is not None)
    room = max(0.02, 0.08 * (highest - lowest))
    layout: dict[str, Any] = {
        "xaxis": axis("tokens in one forward", **token_ticks(counts)),
        "yaxis": axis(
            "speed-up over plain all-reduce",
            range=[lowest - room, highest + 2 * room],
            tickformat=".2f",
            ticksuffix="x",
        ),
        "shapes": [_mark(c.tokens) for c in crossings],
        "annotations": [_note(c, row) for row, c in enumerate(crossings)],
        "hovermode": "x unified",
    }
    legend = [(name, strategy_colour(name)) for name in (PLAN, PLAIN, *names)]
    legend += [(str(line["name"]), str(line["line"]["color"])) for line in servers]
    absent = "".join(f" {name} is not there: {short_reason(name, why)}." for name, why in curve[-1][1].refused.items())
    about = (
        f"{mode.capitalize()}, {counts[0]:,} to {counts[-1]:,} tokens. A uniform strategy is its cheapest legal member "
        f"on every layer; the plan is what the strategy file does.{absent}"
    )
    return Chart(_finding(mode, curve, crossings), about, traces, layout, 400, legend)


def _names(curve: list[tuple[int, Evaluation]]) -> list[str]:
    return list(dict.fromkeys(name for _, found in curve for name in found.plans))


def _line(name: str, curve: list[tuple[int, Evaluation]]) -> dict[str, Any]:
    is_plan = name == PLAN
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [count for count, _ in curve],
        "y": [found.speed_up(name) for _, found in curve],
        "text": [_hover(name, found) for _, found in curve],
        "hovertemplate": "%{y:.3f}x  %{text}",
        "line": {
            "color": strategy_colour(name),
            "width": 5 if is_plan else 1.8,
            "dash": "dot" if name == PLAIN else "solid",
        },
        "connectgaps": False,
    }


def _servers(curve: list[tuple[int, Evaluation]]) -> list[dict[str, Any]]:
    """What the plan is held against first: the stock server by itself, and with the best of its flags."""
    lines = []
    flagged = any(found.held_against.best_flag is not None for _, found in curve)
    for name, dash in ((STOCK, "solid"), *(((STOCK_FLAG, "dash"),) if flagged else ())):
        steps = [f.held_against.stock if name == STOCK else f.held_against.best_flag for _, f in curve]
        lines.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": [count for count, _ in curve],
                "y": [
                    None if step is None else found.plans[PLAIN].parts.step_us / step.step_us
                    for step, (_, found) in zip(steps, curve, strict=True)
                ],
                "text": ["" if step is None else f"{milliseconds(step.step_us)} {step.name}" for step in steps],
                "hovertemplate": "%{y:.3f}x  %{text}",
                "line": {"color": STOCK_COLOUR, "width": 2.4, "dash": dash},
                "connectgaps": False,
            }
        )
    return lines


def _hover(name: str, found: Evaluation) -> str:
    if name not in found.plans:
        return ""
    parts = found.plans[name].parts
    share = parts.communication_us / parts.step_us
    wire = parts.provenance_of("communication") + (", extrapolated" if parts.extrapolated else "")
    return (
        f"{milliseconds(parts.step_us)}, {share:.0%} communication, {parts.numerics}; "
        f"wire times: {wire}, compute: {parts.provenance_of('compute')}"
    )


def _mark(tokens: int) -> dict[str, Any]:
    line = {"color": "faint", "width": 1, "dash": "dot"}
    return {"type": "line", "x0": tokens, "x1": tokens, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def _note(crossover: Crossover, row: int) -> dict[str, Any]:
    return {
        "x": log10(crossover.tokens),
        "y": 1 - 0.07 * (row % 4),
        "yref": "paper",
        "text": f" {crossover.after} from {crossover.tokens:,} ",
        "showarrow": False,
        "xanchor": "left",
        "yanchor": "top",
        "font": {"size": 11, "color": strategy_colour(crossover.after)},
    }


def _finding(mode: str, curve: list[tuple[int, Evaluation]], crossings: list[Crossover]) -> str:
    best_count, best = max(curve, key=lambda item: item[1].over_stock)
    gain = best.over_stock
    if gain < 1.005:
        return f"{mode.capitalize()}: the stock server is right at every token count"
    flag = best.held_against.best_flag
    step_us = best.plans[PLAN].parts.step_us
    ahead = f", {flag.step_us / step_us:.2f}x over {flag.name}" if flag is not None else ""
    first = next((c for c in crossings if c.before == PLAIN), None)
    since = "" if first is None else f" {first.after} overtakes all_reduce at {first.tokens:,} tokens;"
    where = f"at {best_count:,} tokens"
    return f"{mode.capitalize()}:{since} the plan gains up to {gain:.2f}x over the stock server{ahead}, {where}"
