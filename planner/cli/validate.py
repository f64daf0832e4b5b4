"""`commplan validate`: prove strategy files legal, without hardware."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from ..strategy.command_line.option_types import FILLED
from ..strategy.command_line.terminal import echo, styled
from . import options

if TYPE_CHECKING:
    from ..strategy.file import Problem


@click.command("validate", short_help="Prove that strategy files are legal; needs no hardware.")
@click.argument("files", nargs=-1, required=True, type=FILLED)
@click.option(
    "--deployment", type=FILLED, help="What the files were made for (default: the preset that each names, if any)."
)
@options.as_json
def command(files: tuple[str, ...], deployment: str | None, as_json: bool) -> None:
    """Prove that strategy FILES are legal for their model, parallelism, modes and executor.

    What a file was made for and has changed since is said; it makes no file illegal. A head that says otherwise than
    its own fingerprints does.
    """
    from commplan import validate

    from ..answers.validation import compared
    from .output import print_json

    found: dict[str, list[Problem]] = {}
    changed: dict[str, list[str]] = {}
    for file in files:
        problems = list(validate(file).problems)
        found[file], changed[file] = (problems, []) if problems else compared(file, deployment)
    if as_json:
        print_json(
            {
                "files": [
                    {
                        "path": file,
                        "legal": not problems,
                        "errors": [
                            {"field": p.field, "value": p.value, "reason": p.reason, "line": p.line} for p in problems
                        ],
                        "groups": [
                            {"field": where, "value": p.value, "reason": p.reason} for where, p in _by_run(problems)
                        ],
                        "notes": changed[file],
                    }
                    for file, problems in found.items()
                ]
            }
        )
    else:
        for file, problems in found.items():
            echo(f"{file}: ", styled("illegal", "red") if problems else styled("legal", "green"))
            for where, problem in _by_run(problems):
                value = f" (got {problem.value})" if problem.value else ""
                line = f"line {problem.line}: " if problem.line else ""
                echo(f"  {line}{where + ': ' if where else ''}{problem.reason}{value}")
            for text in changed[file]:
                options.print_note(f"{file}: {text}")
    if any(found.values()):
        sys.exit(2)


def _by_run(problems: list[Problem]) -> Iterator[tuple[str, Problem]]:
    """Problems that layers share, once, under the run of those layers."""
    from ..strategy.file.writing import runs_text

    runs: dict[tuple[str, str, str, str], list[int]] = {}
    first: dict[tuple[str, str, str, str], Problem] = {}
    for problem in problems:
        found = re.fullmatch(r"(.*\.layers\.)(\d+)(\..*)", problem.field)
        before, layer, after = found.groups() if found else (problem.field, None, "")
        key = (before, after, problem.value, problem.reason)
        first.setdefault(key, problem)
        if layer is not None:
            runs.setdefault(key, []).append(int(layer))
    for key, problem in first.items():
        yield f"{key[0]}{runs_text(sorted(set(runs[key]))) if key in runs else ''}{key[1]}", problem
