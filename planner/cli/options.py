"""Options that several subcommands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..strategy.command_line.option_types import FieldText
from ..strategy.command_line.terminal import echo, styled
from ..strategy.files import prints_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..descriptions.setup import Setup

overrides = click.option(
    "--set",
    "overrides",
    type=FieldText(),
    multiple=True,
    metavar="FIELD=VALUE",
    help="Override any field, as in parallelism.tp=4; hardware.* and model.* reach into those files. Repeatable.",
)


def _json_is_printed(ctx: click.Context, param: click.Parameter, value: bool) -> bool:  # noqa: ARG001
    if value:
        prints_json(param.opts[0])
    return value


as_json = click.option(
    "--json", "as_json", is_flag=True, callback=_json_is_printed, help="One JSON object on standard output."
)


def print_notes(setup: Setup, more: Sequence[str] = ()) -> None:
    """On standard error: what reading the descriptions did that the user should know, and what else they should."""
    for note in (*setup.notes, *more):
        print_note(note)


def print_note(text: str) -> None:
    """On standard error: what the user should know."""
    echo(styled("note: ", "yellow"), text, err=True)


def print_warning(text: str) -> None:
    """On standard error: what the user should change before they rely on the output."""
    echo(styled("warning: ", "yellow"), text, err=True)
