"""`commplan what-if`: sweeps over any field of a deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..strategy.command_line.option_types import FILLED, TOKENS, FieldText, OutputFile
from ..strategy.command_line.terminal import echo, styled
from . import options

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
@options.overrides
@options.as_json
def command(
    deployment: str,
    vary: tuple[str, ...],
    mode: str | None,
    tokens: int | None,
    csv_file: str | None,
    html_file: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Sweep fields of DEPLOYMENT (a preset or a path): all-reduce, each uniform strategy and the plan at each point.

    A value that makes the deployment illegal is shown with its reason, and the sweep goes on. Without --vary the token
    count is varied over the mode's span.
    """
    from ..descriptions.loader import load_setup
    from ..what_if.marginal_answers import Asker
    from ..what_if.sweep import Sweep
    from .output import print_json

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
        _write_csv(points, csv_file)
    if as_json:
        print_json(_json(points, found, answers, notes))
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

    notes = [*sweep.base.notes, "no overlap of communication and compute is assumed"]
    if any(axis.is_link for axis in sweep.axes):
        notes.insert(0, f"a link is varied: {NOTE}, and marked `formula`")
    if has_own_kernels(sweep.base):
        notes.append(OWN_NOTE)
    return notes


def _written(*files: str | None) -> list[str]:
    return [f"written to {file}" for file in files if file is not None]


# ---- JSON and CSV ----------------------------------------------------------------------------------------------------


def _json(
    points: list[Point], found: list[tuple[dict[str, Any], Crossover]], answers: list[Answer], notes: list[str]
) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "points": [_point_json(point) for point in points],
        "crossovers": [{"set": others, **asdict(c)} for others, c in found],
        "answers": [asdict(answer) for answer in answers],
        "notes": notes,
    }


def _point_json(point: Point) -> dict[str, object]:
    found = point.found
    return {
        "set": point.values,
        "mode": point.mode,
        "tokens": point.tokens,
        "legal": point.legal,
        "reason": point.reason or None,
        "kv_tokens_left": None if point.memory is None else point.memory.kv_tokens_left,
        "plans": [] if found is None else [_plan_json(point, name) for name in found.plans],
        "refused": {} if found is None else found.refused,
    }


def _plan_json(point: Point, name: str) -> dict[str, object]:
    assert point.found is not None
    parts = point.found.plans[name].parts
    return {
        "name": name,
        "step_us": parts.step_us,
        "communication_us": parts.communication_us,
        "communication_share": parts.communication_us / parts.step_us,
        "speed_up": point.found.speed_up(name),
        "wire_bytes": parts.wire_bytes,
        "activation_bytes": parts.activation_bytes,
        "kv_tokens_left": point.memory_of[name].kv_tokens_left,
        "numerics": parts.numerics,
        "provenance": parts.provenance_of("communication"),
        "extrapolated": parts.extrapolated,
    }


def _write_csv(points: list[Point], file: str) -> None:
    import csv
    import io

    from ..strategy.errors import one_line
    from ..strategy.files import write_text_atomically

    names = list(points[0].values) if points else []
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    times = ("step_us", "communication_us", "communication_share", "speed_up")
    columns = (*times, "wire_bytes", "activation_bytes", "kv_tokens_left")
    extra = [n for n in ("mode", "tokens") if n not in names]
    writer.writerow([*names, *extra, "legal", "reason", "plan", *columns, "numerics", "provenance"])
    for point in points:
        given = [*point.values.values(), *(getattr(point, n) for n in extra)]
        given = [one_line(value) if isinstance(value, str) else value for value in given]
        if point.found is None:
            writer.writerow([*given, False, one_line(point.reason), "", *("" for _ in columns), "", ""])
            continue
        for name in point.found.plans:
            row = _plan_json(point, name)
            writer.writerow([*given, True, "", name, *(row[c] for c in columns), row["numerics"], row["provenance"]])
    write_text_atomically(file, stream.getvalue())


# ---- for people ------------------------------------------------------------------------------------------------------


def _print(
    sweep: Sweep,
    points: list[Point],
    found: list[tuple[dict[str, Any], Crossover]],
    answers: list[Answer],
    notes: list[str],
) -> None:
    from .output import heading

    p = sweep.base.parallelism
    heading(f"{sweep.base.deployment.name}: {sweep.base.model.name} on {sweep.base.hardware.name}, TP {p.tp}")
    at = "" if sweep.axis_of_tokens else f", {sweep.tokens} tokens"
    echo(f"Unless varied: {sweep.mode}{at}. Columns of strategies are speed-ups over plain all-reduce.")
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


def _print_points(points: Sequence[Point]) -> None:
    from ..strategies import PLAIN, strategies
    from ..what_if.evaluation import OWN, short_reason
    from .output import duration, table

    legal = [point.found for point in points if point.found is not None]
    uniform = [n for n in (OWN, *strategies()) if n != PLAIN and any(n in found.plans for found in legal)]
    names = list(points[0].values)
    columns = [*names, PLAIN, *uniform, "plan", "step", "wire share", "wire", "activations", "KV tokens", "numerics"]
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
                f"{parts.communication_us / parts.step_us:.1%}",
                _bytes(parts.wire_bytes),
                _bytes(parts.activation_bytes),
                f"{point.memory_of['plan'].kv_tokens_left:,}",
                parts.numerics,
            ]
        )
    table(columns, rows, "r" * (len(columns) - 1) + "l")
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
