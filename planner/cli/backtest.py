"""`commplan backtest`: predictions beside published measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..strategy.command_line.option_types import FILLED
from ..strategy.command_line.terminal import echo, styled
from . import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..backtest.case import Case
    from ..backtest.held_out import HeldOut
    from ..backtest.run import Outcome
    from ..strategy.command_line.terminal import Cell


@click.command("backtest", short_help="Compare predictions with published measurements.")
@click.argument("cases", nargs=-1, type=FILLED)
@click.option("--tables", is_flag=True, help="Instead: hold out every interior point of the shipped tables in turn.")
@click.option("--markdown", is_flag=True, help="The table as Markdown, as docs/accuracy.md has it.")
@click.option("--summary", is_flag=True, help="Instead: all that ships, summed up, as plans quote it.")
@options.as_json
def command(cases: tuple[str, ...], tables: bool, markdown: bool, summary: bool, as_json: bool) -> None:
    """Compare predictions with published measurements.

    Each of CASES is a file, or the name of a case that comes with commplan; without any, all of those are run. A
    prediction outside the tolerance of its case is a finding, not an error: the exit code stays 0. With --tables,
    CASES are calibrations.
    """
    if summary:
        _summed_up(cases, as_json)
        return
    if tables:
        _tables(cases, markdown, as_json)
        return
    from ..backtest.case import find_case, read_case, shipped_cases
    from ..backtest.run import run_case
    from .output import print_json

    paths = [str(find_case(name)) for name in cases] or [str(path) for path in shipped_cases()]
    read = [(path, read_case(path)) for path in paths]
    _check_ids(read)
    outcomes = [run_case(case, path) for path, case in read]
    if as_json:
        print_json({"cases": [_json(outcome) for outcome in outcomes]})
    elif markdown:
        _print_markdown(outcomes)
    else:
        _print(outcomes)


def _summed_up(cases: tuple[str, ...], as_json: bool) -> None:
    """What `commplan plan` says of its trust rests on this."""
    from ..backtest.accuracy_file import summary_text
    from ..backtest.summary import fresh_summary
    from ..strategy.errors import InputError
    from .output import print_json

    if cases:
        raise InputError("a summary is of all that ships: name no case", field="--summary", value=cases[0])
    found = fresh_summary()
    if as_json:
        print_json(found.model_dump(mode="json", by_alias=True))
        return
    for line in summary_text(found).splitlines():
        echo(line, whole=True)


def _tables(names: tuple[str, ...], markdown: bool, as_json: bool) -> None:
    """Held-out accuracy of calibrations, by default of all that ship."""
    from dataclasses import asdict

    from ..backtest.held_out import held_out
    from ..descriptions.loader import preset_names
    from .output import print_json, table

    found = [row for name in names or preset_names("calibrations") for row in held_out(name)]
    if as_json:
        print_json({"tables": [asdict(row) for row in found]})
        return
    by_width = any(row.width is not None for row in found)
    rows = [
        [
            *(row.calibration, _op(row), row.impl, row.dtype, _ranks(row)),
            *([str(row.width or "-")] if by_width else []),
            str(row.points),
            *(_percent(error) for error in (row.median_error, row.p95_error, row.noise)),
            row.noise_from,
        ]
        for row in found
    ]
    widths = ("width",) if by_width else ()
    columns = ("table", "op", "impl", "type", "ranks", *widths, "points", "median", "p95", "noise", "noise from")
    summary = [
        _summed(name, [row for row in found if row.calibration == name])
        for name in dict.fromkeys(r.calibration for r in found)
    ]
    heads = ("calibration", "tables", "median of medians", "median within 5 %", "p95 within 25 %", "noise, median")
    if markdown:
        _markdown(heads, summary)
        echo()
        echo("<details><summary>Every table</summary>")
        echo()
        _markdown(columns, rows)
        echo()
        echo("</details>")
    else:
        table(columns, rows, f"llllr{'r' * len(widths)}rrrrl")
        echo()
        table(heads, summary, "lrrrrr")


def _op(row: HeldOut) -> str:
    return row.op if row.algorithm is None else f"{row.op} {row.algorithm}"


def _ranks(row: HeldOut) -> str:
    return str(row.group_size) if row.attn_dp is None else f"{row.group_size // row.attn_dp} x {row.attn_dp}"


def _summed(name: str, rows: Sequence[HeldOut]) -> list[str]:
    from statistics import median

    medians = [row.median_error for row in rows if row.median_error is not None]
    tails = [row.p95_error for row in rows if row.p95_error is not None]
    noises = [row.noise for row in rows if row.noise is not None]
    return [
        name,
        str(len(rows)),
        _percent(median(medians) if medians else None),
        f"{sum(e <= 0.05 for e in medians)} of {len(medians)}",
        f"{sum(e <= 0.25 for e in tails)} of {len(tails)}",
        _percent(median(noises) if noises else None),
    ]


def _percent(error: float | None) -> str:
    return "-" if error is None else f"{error:.1%}"


def _check_ids(cases: list[tuple[str, Case]]) -> None:
    from ..strategy.errors import InputError

    seen: dict[str, str] = {}
    for path, case in cases:
        if case.id in seen:
            raise InputError(f"{seen[case.id]} has the same id", file=path, field="id", value=case.id)
        seen[case.id] = path


def _json(outcome: Outcome) -> dict[str, object]:
    case = outcome.case
    return {
        "id": case.id,
        "source": case.source,
        "quantity": case.quantity,
        "unit": outcome.unit,
        "published": case.published,
        "predicted": outcome.predicted,
        "predicted_band": outcome.band,
        "low": case.low,
        "high": case.high,
        "error": outcome.error,
        "verdict": outcome.verdict,
        "reason": outcome.reason or None,
        "provenance": outcome.provenance,
        "extrapolated": outcome.extrapolated,
        "sources": list(outcome.sources),
    }


_COLUMNS = ("case", "quantity", "unit", "published", "predicted", "error", "tolerance", "verdict", "rests on")


def _cells(outcome: Outcome) -> list[str]:
    case, predicted = outcome.case, "-"
    if outcome.predicted is not None and outcome.band is not None:
        predicted = number(outcome.predicted)
        low, high = (number(bound) for bound in outcome.band)
        if low != high:
            predicted += f" ({low} to {high})"
    return [
        case.id,
        case.quantity,
        outcome.unit,
        number(case.published),
        predicted,
        "-" if outcome.error is None else f"{outcome.error:+.1%}",
        f"{number(case.low)} to {number(case.high)}",
        outcome.verdict,
        (outcome.provenance or "-") + (", extrapolated" if outcome.extrapolated else ""),
    ]


def _print(outcomes: list[Outcome]) -> None:
    from .output import table

    colours = {"inside": "green", "outside": "red", "not comparable": "yellow"}
    rows = []
    for outcome in outcomes:
        cells: list[Cell] = [*_cells(outcome)]
        cells[7] = styled(outcome.verdict, colours[outcome.verdict])
        rows.append(cells)
    table(_COLUMNS, rows, "lllrrrlll")
    reasons = [o for o in outcomes if o.reason]
    if reasons:
        echo()
        table(["not comparable", "because"], [[o.case.id, o.reason] for o in reasons])
    echo()
    echo(_summary(outcomes))


def _summary(outcomes: list[Outcome]) -> str:
    counts = [f"{sum(o.verdict == v for o in outcomes)} {v}" for v in ("inside", "outside", "not comparable")]
    return f"{len(outcomes)} {'case' if len(outcomes) == 1 else 'cases'}: {', '.join(counts)}."


def _print_markdown(outcomes: list[Outcome]) -> None:
    rows = []
    for outcome in outcomes:
        cells = _cells(outcome)
        if outcome.verdict == "outside":
            cells[7] = "**outside**"
        rows.append(cells)
    _markdown(_COLUMNS, rows)
    echo()
    echo(_summary(outcomes))


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    echo("| " + " | ".join(columns) + " |", whole=True)
    echo("|" + "|".join("---" for _ in columns) + "|", whole=True)
    for row in rows:
        echo("| " + " | ".join(row) + " |", whole=True)


def number(value: float) -> str:
    """Four significant digits, whole numbers from 1000 on."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
