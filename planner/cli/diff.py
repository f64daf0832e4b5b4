"""`commplan diff`: which decisions and times changed between two strategy files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..strategy.command_line.option_types import FILLED
from ..strategy.command_line.terminal import echo
from . import options

if TYPE_CHECKING:
    from ..answers.difference import Change, Steps
    from ..strategy.file import StrategyFile


@click.command("diff", short_help="Show which decisions and times differ between two strategy files.")
@click.argument("before", type=FILLED)
@click.argument("after", type=FILLED)
@click.option("--deployment", type=FILLED, help="What the files were made for (default: the preset that each names).")
@options.as_json
def command(before: str, after: str, deployment: str | None, as_json: bool) -> None:
    """Show which decisions differ between the strategy files BEFORE and AFTER, and what that does to the step.

    Each file is priced for what it was made for, where that is at hand and has not changed; else its own predictions
    are told.
    """
    from ..answers.difference import changes, headers, steps
    from ..answers.file_steps import file_steps
    from .gains import print_faster_rivals, print_gains
    from .output import heading, table

    a, b = _loaded(before), _loaded(after)
    made_for, decisions = headers(a, b), list(changes(a, b))
    priced = file_steps([(before, a), (after, b)], deployment)
    times = steps(a, b, *priced)
    if as_json:
        notes = {when: each.notes for when, each in zip(("before", "after"), priced, strict=True)}
        _print_json((a, b), made_for, decisions, times, notes)
        return
    for each in priced:
        for note in each.notes:
            options.print_note(f"{each.file}: {note}")
    for name, file in ((before, a), (after, b)):
        print_faster_rivals(file, name)
    if made_for:
        heading("Made for something else")
        table(["field", before, after], [[*row] for row in made_for])
        echo()
    if not decisions:
        echo("The decisions are the same.")
    else:
        _print_changes(decisions)
    if decisions or any(each.change_us for each in times):
        _print_steps(times)
    for name, file, prices in ((before, a, priced[0]), (after, b, priced[1])):
        if prices.stale:
            echo(f"Gains of {name}: left out, its predictions are of other ops; explain --strategy {name} tells them.")
        else:
            print_gains(file, name)


def _loaded(file: str) -> StrategyFile:
    """A file whose executor there is: who it is held against is that one's to say."""
    from commplan import load

    from ..executors import load_executor
    from ..strategy.errors import InputError

    strategy = load(file).strategy
    try:
        load_executor(strategy.executor)
    except InputError as error:
        raise error.in_file(file) from None
    return strategy


def _print_json(
    files: tuple[StrategyFile, StrategyFile],
    made_for: list[tuple[str, str, str]],
    decisions: list[Change],
    times: list[Steps],
    notes: dict[str, list[str]],
) -> None:
    from dataclasses import asdict

    from .gains import ranges_json
    from .output import print_json

    print_json(
        {
            "made_for": [{"field": f, "before": x, "after": y} for f, x, y in made_for],
            "changes": [asdict(change) for change in decisions],
            "steps": [
                {
                    "mode": each.mode,
                    "tokens": [each.first, each.last],
                    "before_us": each.before_us,
                    "after_us": each.after_us,
                    "change_us": each.change_us,
                }
                for each in times
            ],
            "gains": dict(zip(("before", "after"), map(ranges_json, files), strict=True)),
            "notes": notes,
        }
    )


def _print_steps(times: list[Steps]) -> None:
    """Both steps of every range, and what lies between them."""
    from .output import heading, span, table

    if not times:
        return
    rows = [
        [
            each.mode,
            span(each.first, each.last),
            *("-" if us is None else f"{us:,.1f}" for us in (each.before_us, each.after_us)),
            *_change(each),
        ]
        for each in times
    ]
    echo()
    heading("Step at the last token count of each range, us")
    table(["mode", "tokens", "before", "after", "change", ""], rows, "lrrrrr")


def _change(steps: Steps) -> tuple[str, str]:
    if steps.change_us is None or not steps.before_us:
        return "-", ""
    return f"{steps.change_us:+,.1f}", f"{steps.change_us / steps.before_us:+.2%}"


def _print_changes(decisions: list[Change]) -> None:
    from .output import heading, span, table

    heading(f"{len(decisions)} decision{'s differ' if len(decisions) != 1 else ' differs'}")
    rows = [[c.mode, span(c.first, c.last), c.layers or "", c.boundary, c.before, c.after] for c in decisions]
    table(["mode", "tokens", "layers", "boundary", "before", "after"], rows, "lrllll")
