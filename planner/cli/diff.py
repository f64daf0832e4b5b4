"""`commplan diff`: which decisions changed between two strategy files."""

from __future__ import annotations

import click

from ..strategy.command_line.option_types import FILLED
from ..strategy.command_line.terminal import echo
from . import options


@click.command("diff", short_help="Show which decisions differ between two strategy files.")
@click.argument("before", type=FILLED)
@click.argument("after", type=FILLED)
@options.as_json
def command(before: str, after: str, as_json: bool) -> None:
    """Show which decisions differ between the strategy files BEFORE and AFTER."""
    from dataclasses import asdict

    from ..answers.difference import changes, headers
    from ..strategy.file import load
    from .output import heading, print_json, span, table

    a, b = load(before), load(after)
    made_for, decisions = headers(a, b), list(changes(a, b))
    if as_json:
        print_json(
            {
                "made_for": [{"field": f, "before": x, "after": y} for f, x, y in made_for],
                "changes": [asdict(change) for change in decisions],
            }
        )
        return
    if made_for:
        heading("Made for something else")
        table(["field", before, after], [[*row] for row in made_for])
        echo()
    if not decisions:
        echo("The decisions are the same.")
        return
    heading(f"{len(decisions)} decision{'s differ' if len(decisions) != 1 else ' differs'}")
    rows = [[c.mode, span(c.first, c.last), c.layers or "", c.boundary, c.before, c.after] for c in decisions]
    table(["mode", "tokens", "layers", "boundary", "before", "after"], rows, "lrllll")
