"""`commplan presets`: what ships with commplan."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

import click

from ..strategy.command_line.option_types import FILLED
from ..strategy.command_line.terminal import echo
from . import options

_KINDS = ("deployments", "models", "hardware", "calibrations", "executors", "strategies")


@click.command("presets", short_help="List the models, hardware, calibrations, deployments, executors and strategies.")
@click.argument("kind", required=False, type=click.Choice(_KINDS))
@click.argument("name", required=False, type=FILLED)
@options.as_json
def command(kind: str | None, name: str | None, as_json: bool) -> None:
    """List the presets of every KIND, or of one; with a NAME, print the path of its file alone."""
    from .output import heading, print_json

    if kind is not None and name is not None:
        _print_path(kind, name, as_json)
        return
    found = {each: _entries(each) for each in ([kind] if kind else _KINDS)}
    if as_json:
        print_json({each: [vars(entry) for entry in entries] for each, entries in found.items()})
        return
    for index, (each, entries) in enumerate(found.items()):
        if index:
            echo()
        heading(each)
        _print_entries(entries)


@dataclass(frozen=True)
class _Entry:
    """A preset: its name, what it is, and its file; a strategy of the planner is no file to copy."""

    name: str
    description: str
    path: str | None


def _print_entries(entries: list[_Entry]) -> None:
    """A line for each, and before them where the files are."""
    from .output import WIDTH, table

    if (folder := entries[0].path) is not None:
        echo(f"  {Path(folder).parent}{os.sep}NAME.yaml")
    room = WIDTH - 4 - max(len(entry.name) for entry in entries)
    table(
        ["name", "what it is"], [[e.name, textwrap.shorten(e.description, room, placeholder=" ...")] for e in entries]
    )


def _print_path(kind: str, name: str, as_json: bool) -> None:
    from ..strategy.errors import InputError, did_you_mean
    from .output import print_json

    found = {entry.name: entry for entry in _entries(kind)}
    if name not in found:
        text = f"no such preset of {kind}; {did_you_mean(name, found)}"
        raise InputError(text, kind="usage", field="NAME", value=name)
    if as_json:
        print_json(vars(found[name]))
    else:
        echo(found[name].path or found[name].description)


def _entries(kind: str) -> list[_Entry]:
    if kind == "executors":
        from ..executors import executor_names, load_executor
        from ..strategy.executor_file import executor_path

        names = executor_names()
        return [_Entry(name, load_executor(name).description, str(executor_path(name))) for name in names]
    if kind == "strategies":
        from ..strategies import strategies

        return [_Entry(s.name, s.summary, None) for s in strategies().values()]
    from ..descriptions.loader import find, preset_names
    from ..strategy.yaml_file import read_mapping

    entries = []
    for name in preset_names(kind):
        path = find(name, kind, None, kind)
        data = read_mapping(path)
        about = data.get("description") or data.get("machine") or data.get("architecture") or ""
        entries.append(_Entry(name, str(about), str(path)))
    return entries
