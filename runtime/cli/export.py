"""`commplan export sglang`: the nearest native flags of a server without the plugin."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from commplan.planner.strategy.command_line.option_types import FILLED
from commplan.planner.strategy.command_line.terminal import echo, print_json, styled

if TYPE_CHECKING:
    from ..servers.sglang.nearest_flags import Difference, Export


@click.command("sglang", short_help="The nearest flags of SGLang without the plugin, and what they miss.")
@click.argument("strategy", type=FILLED)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(strategy: str, as_json: bool) -> None:
    """Show the switch of SGLang 0.5.23 that comes nearest to the plan in STRATEGY, and every boundary that differs."""
    from commplan.planner.strategy.file import load, plan_again, rival_line

    from ..servers.sglang.nearest_flags import nearest
    from ..servers.sglang.words import EXECUTOR

    file = load(strategy)
    export, faster = nearest(file), [rival_line(mode, rival) for mode, rival in file.faster_rivals]
    notes = []
    if file.executor != EXECUTOR:
        notes.append(f"planned for executor {file.executor}, with what that runs; else: {plan_again(file, EXECUTOR)}")
    if as_json:
        print_json(_json(export, faster) | {"notes": notes})
    else:
        for note in notes:
            echo(styled("note: ", "yellow"), note, err=True)
        _print(export, faster)


def _json(export: Export, faster: list[str]) -> dict[str, object]:
    return {
        "faster_rivals": faster,
        "switch": export.switch.name,
        "note": export.switch.note,
        "arguments": [word for flag in export.flags for word in (flag.name, *flag.values)],
        "reasons": {flag.name: flag.reason for flag in export.flags},
        "matched": export.matched,
        "own_kernels": list(export.own),
        "differences": [
            {
                "mode": d.mode,
                "tokens": list(d.tokens),
                "boundary": d.boundary,
                "layers": list(d.layers),
                "planned": d.planned,
                "native": d.native,
            }
            for d in export.differences
        ],
    }


def _print(export: Export, faster: list[str]) -> None:
    for line in faster:
        echo(styled(line, "yellow", bold=True))
    note = f" ({export.switch.note})" if export.switch.note else ""
    echo(f"Nearest without the plugin: {export.switch.name}{note}")
    echo("  " + shlex.join(word for flag in export.flags for word in (flag.name, *flag.values)), whole=True)
    for flag in export.flags:
        echo(f"  {flag}")
    echo(f"It runs {export.matched:.0%} of the planned ops, weighted by tokens.")
    if export.own:
        names = " and ".join(export.own)
        echo(f"Whatever the flags, {names} stay behind: kernels of commplan's, which the plugin brings.")
    if not export.differences:
        if not faster and not export.own:  # else it is the plan itself that loses
            echo("Nothing is lost.")
        return
    echo(styled("What it does not express:", bold=True))
    for difference in export.differences:
        echo(f"  {_line(difference)}")


def _line(d: Difference) -> str:
    layers = f" of layers {_runs(d.layers)}" if d.layers else ""
    return f"{d.mode} {d.tokens[0]}-{d.tokens[1]} tokens, {d.boundary}{layers}: planned {d.planned}, runs {d.native}"


def _runs(numbers: Sequence[int]) -> str:
    """`0-2, 5`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
