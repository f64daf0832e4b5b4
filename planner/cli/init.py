"""`commplan init`: files of one's own, written complete."""

from __future__ import annotations

import click

from .init_deployment import command as deployment
from .init_hardware import command as hardware


@click.group("init", short_help="Write a hardware file from a data sheet, or a deployment of a model.")
def command() -> None:
    """Write a complete file of your own to begin with: of a machine, then of a model on it."""


command.add_command(hardware)
command.add_command(deployment)
