"""Options that several subcommands share."""

from __future__ import annotations

import click

overrides = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Override any field, as in parallelism.tp=4; hardware.* and model.* reach into those files. Repeatable.",
)
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
