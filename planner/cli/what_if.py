"""`commplan what-if`: sweeps over any field of a deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..strategy.command_line.option_types import FILLED, TOKENS, FieldText, OutputFile
from ..strategy.command_line.terminal import echo, styled
from . import options, sla

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..strategy.command_line.terminal import Cell
    from ..what_if.crossovers import Crossover
    from ..what_if.marginal_answers import Answer
    from ..what_if.sweep import Point, Sweep


@click.command("what-if", short_help="Sweep fields of a deployment: every strategy at every point, and crossovers.")
@click.argument("deployment", type=options.DEPLOYMENT)
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
    from commplan import what_if

    from ..what_if.rows import sweep_json, write_csv
    from .output import print_json

    asked = what_if(deployment, vary=vary, mode=mode, tokens=tokens, set=overrides, progress=_watched)
    sweep, points, found = asked.sweep, list(asked.points), list(asked.crossovers)
    answers, notes = list(asked.answers), list(asked.notes)
    if html_file is not None:
        from ..report.sweep_report import write_what_if
        from ..strategy.errors import NoLegalPlanError

        try:
            write_what_if(html_file, sweep, points, answers, notes)
        except NoLegalPlanError as error:
            raise sweep.base.in_its_file(error) from None
    if csv_file is not None:
        write_csv(points, csv_file)
    if as_json:
        print_json(sweep_json(points, found, answers, notes))
    else:
        _print(sweep, points, found, answers, [*notes, *_written(csv_file, html_file)])


def _watched(points: Iterator[Point], total: int) -> Iterator[Point]:
    """The points, with a progress bar on standard error where somebody watches it."""
    import sys

    if not sys.stderr.isatty():
        yield from points
        return
    bar: Any = click.progressbar(points, length=total, label="points", file=sys.stderr)
    with bar as watched:
        yield from watched


def _written(*files: str | None) -> list[str]:
    from ..strategy.files import shown

    return [f"written to {shown(file)}" for file in files if file is not None]


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
        heading("What was varied")
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
    helping = (found.held_against.helping_flag for found in legal)
    flags = dict.fromkeys(flag.name for flag in helping if flag is not None)
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
