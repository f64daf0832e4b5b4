"""`commplan report`: a strategy file as one page of charts."""

from __future__ import annotations

import click

from ..strategy.command_line.option_types import FILLED, OutputFile
from ..strategy.command_line.terminal import echo
from . import options


@click.command("report", short_help="Draw a strategy file: which strategy wins where and why, on one page.")
@click.argument("strategy_file", type=FILLED)
@click.option("-o", "--output", type=OutputFile(), help="Where to write the page (default: beside the file, .html).")
@click.option("--html", "html_file", type=OutputFile(), hidden=True, help="The same as --output.")
@click.option(
    "--deployment", type=FILLED, help="Deployment that the file was made for (default: the preset that it names)."
)
@options.overrides
@options.as_json
def command(
    strategy_file: str,
    output: str | None,
    html_file: str | None,
    deployment: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Draw STRATEGY_FILE on one page that needs no network."""
    from ..report.strategy_report import report_strategy
    from ..strategy.errors import InputError
    from ..strategy.files import name_target, shown
    from .output import print_json

    if output is not None and html_file is not None:
        raise InputError("means the same as --output: name one of them", field="--html", value=html_file)
    target = output or html_file or _beside(strategy_file)
    if target not in (output, html_file):
        name_target(target, "--output")
    page = report_strategy(strategy_file, deployment, overrides, target)
    if as_json:
        print_json({"html": target, "finding": page.title})
    else:
        echo(page.title)
        echo(f"Written to {shown(target)}")


def _beside(strategy_file: str) -> str:
    from pathlib import Path

    path = Path(strategy_file)
    return str(path.with_suffix(".html") if path.name else path)
