"""`commplan presets`: what ships with commplan."""

from __future__ import annotations

import click

from ..strategy.command_line.terminal import echo
from . import options

_KINDS = ("deployments", "models", "hardware", "calibrations", "executors", "strategies")


@click.command("presets", short_help="List the models, hardware, calibrations, deployments, executors and strategies.")
@click.argument("kind", required=False, type=click.Choice(_KINDS))
@options.as_json
def command(kind: str | None, as_json: bool) -> None:
    """List the presets of every KIND, or of one."""
    from .output import heading, print_json, table

    found = {name: _entries(name) for name in ([kind] if kind else _KINDS)}
    if as_json:
        print_json({name: [{"name": n, "description": d} for n, d in entries] for name, entries in found.items()})
        return
    for index, (name, entries) in enumerate(found.items()):
        if index:
            echo()
        heading(name)
        table(["name", "what it is"], [[n, d] for n, d in entries])


def _entries(kind: str) -> list[tuple[str, str]]:
    if kind == "executors":
        from ..executors import executor_names, load_executor

        return [(name, load_executor(name).description) for name in executor_names()]
    if kind == "strategies":
        from ..strategies import strategies

        return [(s.name, s.summary) for s in strategies().values()]
    from ..descriptions.loader import find, preset_names
    from ..strategy.yaml_file import read_mapping

    entries = []
    for name in preset_names(kind):
        data = read_mapping(find(name, kind, None, kind))
        about = data.get("description") or data.get("machine") or data.get("architecture") or ""
        entries.append((name, str(about)))
    return entries
