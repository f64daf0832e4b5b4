"""`commplan diff`: which decisions changed between two strategy files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..strategy.command_line.option_types import FILLED
from ..strategy.command_line.terminal import echo
from . import options

if TYPE_CHECKING:
    from ..answers.difference import Change


@click.command("diff", short_help="Show which decisions differ between two strategy files.")
@click.argument("before", type=FILLED)
@click.argument("after", type=FILLED)
@options.as_json
def command(before: str, after: str, as_json: bool) -> None:
    """Show which decisions differ between the strategy files BEFORE and AFTER."""
    from dataclasses import asdict

    from commplan import load

    from ..answers.difference import changes, headers
    from .gains import print_faster_rivals, print_gains, ranges_json
    from .output import heading, print_json, table

    a, b = load(before).strategy, load(after).strategy
    made_for, decisions = headers(a, b), list(changes(a, b))
    if as_json:
        print_json(
            {
                "made_for": [{"field": f, "before": x, "after": y} for f, x, y in made_for],
                "changes": [asdict(change) for change in decisions],
                "gains": {"before": ranges_json(a), "after": ranges_json(b)},
            }
        )
        return
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
    for name, file in ((before, a), (after, b)):
        print_gains(file, name)


def _print_changes(decisions: list[Change]) -> None:
    from .output import heading, span, table

    heading(f"{len(decisions)} decision{'s differ' if len(decisions) != 1 else ' differs'}")
    rows = [[c.mode, span(c.first, c.last), c.layers or "", c.boundary, c.before, c.after] for c in decisions]
    table(["mode", "tokens", "layers", "boundary", "before", "after"], rows, "lrllll")
