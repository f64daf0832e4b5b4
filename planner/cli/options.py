"""Options that several subcommands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..strategy.command_line.option_types import FieldText
from ..strategy.command_line.terminal import echo, styled

if TYPE_CHECKING:
    from ..descriptions.setup import Setup

overrides = click.option(
    "--set",
    "overrides",
    type=FieldText(),
    multiple=True,
    metavar="FIELD=VALUE",
    help="Override any field, as in parallelism.tp=4; hardware.* and model.* reach into those files. Repeatable.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")


def print_notes(setup: Setup) -> None:
    """On standard error: what reading the descriptions did that the user should know."""
    for note in setup.notes:
        print_note(note)


def print_note(note: str) -> None:
    """One of them."""
    echo(styled("note: ", "yellow"), note, err=True)


def print_warning(text: str) -> None:
    """On standard error: what the user should change before they rely on the output."""
    echo(styled("warning: ", "yellow"), text, err=True)
