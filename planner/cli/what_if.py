"""`commplan what-if`: sweeps over any field of a deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..strategy.command_line.option_types import FILLED, TOKENS, FieldText, OutputFile
from ..strategy.command_line.terminal import echo, styled
from . import options, sla

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..descriptions.setup import Setup
    from ..strategy.command_line.terminal import Cell
    from ..what_if.crossovers import Crossover
    from ..what_if.marginal_answers import Answer
    from ..what_if.sweep import Point, Sweep


@click.command("what-if", short_help="Sweep fields of a deployment: every strategy at every point, and crossovers.")
@click.argument("deployment", type=FILLED)
@click.option(
    "--vary",
    type=FieldText(),
    multiple=True,
    metavar="FIELD=VALUES",
    help="Values 1,64,4096 or a range 16..16384:x2 or 2..8:+2 of tokens, mode, tp, attn_dp, link_bandwidth, "
    "error_budget, model, hardware or any field that --set takes. Repeatable: all combinations.",
)
@click.option("--mode", type=FILLED, help="Forward mode (default: the first of the deployment).")
@click.option("--tokens", type=TOKENS, help="Token count where tokens are not varied (default: the mode's largest).")
@click.option("--csv", "csv_file", type=OutputFile(), help="Write a row per point and plan.")
@click.option("--html", "html_file", type=OutputFile(), help="Write a report, one page without network.")
@sla.limits
@options.overrides
@options.as_json
def command(
    deployment: str,
    vary: tuple[str, ...],
    mode: str | None,
    tokens: int | None,
    csv_file: str | None,
    html_file: str | None,
    ttft_ms: float | None,
    itl_ms: float | None,
    requests: int | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Sweep fields of DEPLOYMENT (a preset or a path): all-reduce, each uniform strategy and the plan at each point.

    A value that makes the deployment illegal is shown with its reason, and the sweep goes on. Without --vary the token
    count is varied over the mode's span.

    With --ttft-ms or --itl-ms nothing is swept: the largest load and the fewest devices that keep them are told.
    """
    if requests is not None and ttft_ms is None and itl_ms is None:
        raise click.UsageError("--requests belongs to --ttft-ms and --itl-ms")
    if ttft_ms is not None or itl_ms is not None:
        if vary or mode or tokens or csv_file or html_file:
            raise click.UsageError(
                "--ttft-ms and --itl-ms sweep nothing: ask --vary, --mode, --tokens, --csv, --html apart"
            )
        from ..descriptions.loader import load_setup

        sla.answer(load_setup(deployment, overrides), deployment, overrides, ttft_ms, itl_ms, requests, as_json)
        return
    from ..descriptions.loader import load_setup
    from ..what_if.marginal_answers import Asker
    from ..what_if.sweep import Sweep
    from .output import print_json
    from .what_if_rows import sweep_json, write_csv

    if html_file is not None:
        from ..report.page import check_plotly

        check_plotly("--html")
    base = load_setup(deployment, overrides)
    mode = _mode(base, mode)
    count = tokens or base.deployment.modes[mode].tokens[1]
    sweep = Sweep.of(deployment, overrides, vary or (_default_axis(base, mode),), mode, count, base)
    points = _points(sweep)
    found = _crossovers(sweep, points)
    answers = Asker(deployment, overrides, base, mode, count).answers()
    notes = _notes(sweep)
    if html_file is not None:
        from ..report.sweep_report import write_what_if
        from ..strategy.errors import NoLegalPlanError

        try:
            write_what_if(html_file, sweep, points, answers, notes)
        except NoLegalPlanError as error:
            raise error.in_file(base.file) from None
    if csv_file is not None:
        write_csv(points, csv_file)
    if as_json:
        print_json(sweep_json(points, found, answers, notes))
    else:
        _print(sweep, points, found, answers, [*notes, *_written(csv_file, html_file)])


def _mode(base: Setup, mode: str | None) -> str:
    from ..strategy.errors import InputError, did_you_mean

    modes = base.deployment.modes
    if mode is not None and mode not in modes:
        raise InputError(f"the deployment has no such mode; {did_you_mean(mode, modes)}", field="--mode", value=mode)
    return mode or next(iter(modes))


def _default_axis(base: Setup, mode: str) -> str:
    first, last = base.deployment.modes[mode].tokens
    counts = sorted({first, last, *(2**k for k in range(40) if first < 2**k < last)})
    return "tokens=" + ",".join(map(str, counts))


def _points(sweep: Sweep) -> list[Point]:
    """All points, with a progress bar on standard error where somebody watches it."""
    import sys

    if not sys.stderr.isatty():
        return list(sweep.points())
    bar: Any = click.progressbar(sweep.points(), length=sweep.size, label="points", file=sys.stderr)
    with bar as points:
        return list(points)


def _crossovers(sweep: Sweep, points: list[Point]) -> list[tuple[dict[str, Any], Crossover]]:
    """Crossovers over the varied token counts, for each combination of the other values."""
    from ..what_if.crossovers import crossovers

    if sweep.axis_of_tokens is None:
        return []
    groups: dict[str, list[Point]] = {}
    for point in points:
        if point.legal:
            others = {name: value for name, value in point.values.items() if name != "tokens"}
            groups.setdefault(repr(others), []).append(point)
    found = []
    for group in groups.values():
        others = {name: value for name, value in group[0].values.items() if name != "tokens"}
        counts = [point.tokens for point in group]
        found += [(others, c) for c in crossovers(sweep.evaluator(group[0].values), group[0].mode, counts)]
    return found


def _notes(sweep: Sweep) -> list[str]:
    from ..cost.collectives import NOTE
    from ..search.offers import has_own_kernels
    from ..what_if.evaluation import OWN_NOTE

    notes = [
        *sweep.base.notes,
        "no overlap of communication and compute is assumed, but in flags of a server that have it",
    ]
    if any(axis.is_link for axis in sweep.axes):
        notes.insert(0, f"a link is varied: {NOTE}, and marked `formula`")
    if has_own_kernels(sweep.base):
        notes.append(OWN_NOTE)
    return notes


def _written(*files: str | None) -> list[str]:
    return [f"written to {file}" for file in files if file is not None]


# ---- for people ------------------------------------------------------------------------------------------------------


def _print(
    sweep: Sweep,
    points: list[Point],
    found: list[tuple[dict[str, Any], Crossover]],
    answers: list[Answer],
    notes: list[str],
) -> None:
    from .gains import yardsticks
    from .output import heading

    _print_faster(points)
    p = sweep.base.parallelism
    stages = f" x PP {p.pp}" if p.pp > 1 else ""
    heading(f"{sweep.base.deployment.name}: {sweep.base.model.name} on {sweep.base.hardware.name}, TP {p.tp}{stages}")
    at = "" if sweep.axis_of_tokens else f", {sweep.tokens} tokens"
    echo(f"Unless varied: {sweep.mode}{at}. Columns of strategies are speed-ups over plain all-reduce.")
    echo(f"Gains of the plan: {yardsticks(sweep.base.executor.name, sweep.base.hardware.backend)}.")
    echo()
    _print_points(points)
    if found:
        echo()
        heading("Fastest uniform strategy")
        for others, c in found:
            where = ", ".join(f"{name} {value}" for name, value in others.items())
            echo(f"  {where + ': ' if where else ''}from {c.tokens} tokens on {c.after} instead of {c.before}")
    if answers:
        echo()
        heading(f"Asked of {sweep.mode} at {sweep.tokens} tokens")
        for answer in answers:
            echo(f"  {answer.question} {answer.answer[0].upper()}{answer.answer[1:]}.")
    echo()
    for note in notes:
        echo(note[0].upper() + note[1:] + ".")


def _print_faster(points: Sequence[Point]) -> None:
    """Say first at how many points the stock server, or a flag of it, is faster than the plan."""
    from ..strategy.file.document import is_faster

    legal = [point.found for point in points if point.found is not None]
    counts: dict[str, int] = {}
    for found in legal:
        step_us, prices = found.plans["plan"].parts.step_us, found.held_against
        for rival in (prices.best_flag, prices.stock):
            if rival is not None and is_faster(rival.step_us, step_us):
                who = f"The stock flag {rival.name}" if rival.name else _SERVER
                counts[who] = counts.get(who, 0) + 1
    for who in sorted(counts, key=lambda each: (each == _SERVER, each)):
        echo(styled(f"{who} is faster than the plan at {counts[who]} of {len(legal)} points", "yellow", bold=True))


_SERVER = "The stock server by itself"


def _print_points(points: Sequence[Point]) -> None:
    from ..strategies import PLAIN, strategies
    from ..what_if.evaluation import OWN, short_reason
    from .gains import price_cells
    from .output import duration, table

    legal = [point.found for point in points if point.found is not None]
    uniform = [n for n in (OWN, *strategies()) if n != PLAIN and any(n in found.plans for found in legal)]
    names = list(points[0].values)
    against = ["vs stock", "vs its best flag", "vs library"]
    known = ["wire share", "wire", "activations", "KV tokens", "numerics"]
    columns = [*names, PLAIN, *uniform, "plan", "step", *against, *known]
    rows: list[list[Cell]] = []
    for point in points:
        given = [str(value) for value in point.values.values()]
        if point.found is None:
            rows.append(
                [
                    *given,
                    *("-" for _ in columns[len(given) : -1]),
                    (styled("illegal: ", "yellow"), point.reason),
                ]
            )
            continue
        plans, parts = point.found.plans, point.found.plans["plan"].parts
        rows.append(
            [
                *given,
                duration(plans[PLAIN].parts.step_us),
                *(_times(point.found.speed_up(name)) for name in (*uniform, "plan")),
                duration(parts.step_us),
                *price_cells(point.found.held_against, parts.step_us),
                f"{parts.communication_us / parts.step_us:.1%}",
                _bytes(parts.wire_bytes),
                _bytes(parts.activation_bytes),
                f"{point.memory_of['plan'].kv_tokens_left:,}",
                parts.numerics,
            ]
        )
    table(columns, rows, "r" * (len(columns) - 1) + "l")
    flags = dict.fromkeys(f.held_against.best_flag.name for f in legal if f.held_against.best_flag is not None)
    if flags:
        echo(f"  The stock server's best flag is {' or '.join(flags)}.")
    beyond = sum(found.plans["plan"].parts.extrapolated for found in legal)
    if beyond:
        echo(f"  {beyond} of {len(points)} points ask a table beyond its ends: their wire times are extrapolated.")
    absent = {n: why for found in legal for n, why in found.refused.items() if n not in uniform}
    for name, why in absent.items():
        echo(f"  {name} has no place at any point: {short_reason(name, why)}")


def _times(speed_up: float | None) -> str:
    return "-" if speed_up is None else f"{speed_up:.3f}x"


def _bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count:.0f} B"
