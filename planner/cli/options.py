"""Options that several subcommands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..errors import control_character
from ..terminal import echo, styled

if TYPE_CHECKING:
    from ..spec.loader import Setup

overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Override any field, as in parallelism.tp=4; hardware.* and model.* reach into those files. Repeatable.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")


class OutputFile(click.Path):
    """The type of every option that names a file to write: a file that the command reads is refused."""

    def __init__(self) -> None:
        super().__init__(readable=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path, named as what will be written before anything is read."""
        from ..files import name_target

        path = str(super().convert(value, param, ctx))
        name_target(path, max(param.opts, key=len) if param is not None else self.name)
        return path


class PlainText(click.ParamType):  # type: ignore[type-arg]
    """The type of an option whose text goes into a file, where readers refuse control characters."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text as it is, or a usage error."""
        if (found := control_character(value)) is not None:
            self.fail(f"holds the control character {found}; plain text is expected", param, ctx)
        return value


PLAIN_TEXT = PlainText()


def print_notes(setup: Setup) -> None:
    """On standard error: what reading the descriptions did that the user should know."""
    for note in setup.notes:
        echo(styled("note: ", "yellow"), note, err=True)
