"""`commplan export`: what servers can be told without a plugin. One file per server; the runtime's is known by name."""

from __future__ import annotations

from importlib import import_module

import click

_SERVERS = {
    "sglang": "commplan.runtime.cli.export",
    "sglang-table": "commplan.planner.cli.export_sglang_table",
    "vllm": "commplan.planner.cli.export_vllm",
}


class _Servers(click.Group):
    """Imports a server's file when it is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_SERVERS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _SERVERS:
            return None
        command: click.Command = import_module(_SERVERS[cmd_name]).command
        return command


@click.group("export", cls=_Servers, short_help="Say what a server can be told without a plugin, and what it misses.")
def command() -> None:
    """Say what a server can be told without a plugin: its flags, its environment, limits for its source.

    What it cannot express is said line by line. Each of them takes --json.
    """
