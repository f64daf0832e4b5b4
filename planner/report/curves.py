"""Speed-up over plain all-reduce by token count: one line per strategy, the plan in ink, crossovers marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from ..answers.to_file import collective_provenance
from ..search.stock import StockStep
from ..strategies import PLAIN
from ..what_if.crossovers import Crossover
from ..what_if.evaluation import PLAN, Evaluation, short_reason
from .axis import linear, of_tokens
from .chart import Chart, Key, milliseconds
from .palette import STOCK, STOCK_COLOUR, STOCK_FLAG, TEXT, on_card, strategy_colour
from .study import Study
from .table import Cell, Table
from .xy_plot import Mark, Series, XYPlot, times

Curve = list[tuple[int, Evaluation]]


def speed_up_chart(study: Study, mode: str) -> Chart:
    """The chart of a mode."""
    curve = study.evaluations(mode)
    counts = [count for count, _ in curve]
    names = [name for name in _names(curve) if name not in (PLAIN, PLAN)]
    crossings = study.crossovers(mode)
    # The plan lies below the others, broader, so that the strategy it coincides with shows on top of it.
    servers = _servers(curve)
    series = [_line(PLAN, curve), _line(PLAIN, curve), *servers, *(_line(name, curve) for name in names)]
    values = [y for each in series for _, y in each.points if y is not None]
    room = max(0.02, 0.08 * (max(values) - min(values)))
    plot = XYPlot(
        series,
        of_tokens(counts),
        linear("speed-up over plain all-reduce", min(values) - room, max(values) + room, times),
        [each.key for each in (series[0], *servers, *series[2 + len(servers) :], series[1])],
        [Mark(c.tokens, f"{c.after} from {c.tokens:,}", strategy_colour(c.after, TEXT)) for c in crossings],
    )
    absent = "".join(f" {name} is not there: {short_reason(name, why)}." for name, why in curve[-1][1].refused.items())
    about = (
        f"{mode.capitalize()}, {counts[0]:,} to {counts[-1]:,} tokens. A uniform strategy is its cheapest legal member "
        f"on every layer; the plan is what the strategy file does.{absent}"
    )
    finding = _finding(mode, curve, crossings)
    return Chart(finding, about, plot, [_table(mode, curve, plot.legend), _grounds(mode, curve, plot.legend)])


def _names(curve: Curve) -> list[str]:
    return list(dict.fromkeys(name for _, found in curve for name in found.plans))


def _line(name: str, curve: Curve) -> Series:
    width, dash = (5.0, None) if name == PLAN else (2.0, "1 4" if name == PLAIN else None)
    key = Key(name, strategy_colour(name), width, dash)
    return Series(key, [(count, found.speed_up(name)) for count, found in curve])


def _servers(curve: Curve) -> list[Series]:
    """What the plan is held against first: the stock server by itself, and with the best of its flags."""
    flagged = any(found.held_against.best_flag is not None for _, found in curve)
    lines = []
    for name, dash in ((STOCK, None), *(((STOCK_FLAG, "7 4"),) if flagged else ())):
        points = []
        for count, found in curve:
            step = _server(found, name)
            points.append((count, None if step is None else found.plans[PLAIN].parts.step_us / step.step_us))
        lines.append(Series(Key(name, on_card(STOCK_COLOUR), 2.4, dash), points))
    return lines


def _server(found: Evaluation, name: str) -> StockStep | None:
    return found.held_against.stock if name == STOCK else found.held_against.best_flag


# ---- as tables -------------------------------------------------------------------------------------------------------


def _table(mode: str, curve: Curve, keys: Sequence[Key]) -> Table:
    flags = {found.held_against.best_flag.name for _, found in curve if found.held_against.best_flag is not None}
    only = next(iter(flags)) if len(flags) == 1 else ""
    rows = [[f"{count:,}", *(_cell(key.name, found, only) for key in keys)] for count, found in curve]
    heads = [f"{key.name} {only}".strip() if key.name == STOCK_FLAG else key.name for key in keys]
    what = "speed-up over plain all-reduce; time of a step, and the share of it on the wire"
    return Table(f"{mode.capitalize()}: {what}, by tokens in one forward", ["tokens", *heads], rows)


def _cell(name: str, found: Evaluation, flag: str) -> Cell | str:
    """The figures of a line; the server's flag is named unless it is this one, which the head of the column names."""
    if name in (STOCK, STOCK_FLAG):
        step = _server(found, name)
        if step is None:
            return "–"
        speed_up = found.plans[PLAIN].parts.step_us / step.step_us
        return Cell(f"{speed_up:.3f}x", f"{milliseconds(step.step_us)} {step.name.removeprefix(flag)}".strip())
    ratio = found.speed_up(name)
    if ratio is None:
        return "–"
    parts = found.plans[name].parts
    share = parts.communication_us / parts.step_us
    return Cell(f"{ratio:.3f}x", f"{milliseconds(parts.step_us)}, {share:.0%} wire")


def _grounds(mode: str, curve: Curve, keys: Sequence[Key]) -> Table:
    """What the lines rest on: a row for each run of token counts over which that is the same."""
    rows = []
    for key in keys:
        for grounds, run in groupby(curve, _grounds_of(key.name)):
            counts = [count for count, _ in run]
            if grounds is not None:
                rows.append([key.name, f"{counts[0]:,}–{counts[-1]:,}", *grounds])
    columns = ["line", "tokens", "numerics", "wire times from", "compute from"]
    return Table(f"{mode.capitalize()}: what these figures rest on", columns, rows, frozenset({0, 2, 3, 4}))


def _grounds_of(name: str) -> Callable[[tuple[int, Evaluation]], tuple[str, str, str] | None]:
    def of(point: tuple[int, Evaluation]) -> tuple[str, str, str] | None:
        count, found = point
        if name in (STOCK, STOCK_FLAG):
            step = _server(found, name)
            return None if step is None else ("–", collective_provenance(found.server.server, step.plan, count), "–")
        if name not in found.plans:
            return None
        parts = found.plans[name].parts
        wire = parts.provenance_of("communication") + (", extrapolated" if parts.extrapolated else "")
        return parts.numerics, wire, parts.provenance_of("compute")

    return of


def _finding(mode: str, curve: Curve, crossings: list[Crossover]) -> str:
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
