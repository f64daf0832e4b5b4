"""`commplan validate`: prove strategy files legal, without hardware."""

from __future__ import annotations

import sys

import click

from . import options


@click.command("validate", short_help="Prove that strategy files are legal; needs no hardware.")
@click.argument("files", nargs=-1, required=True)
@options.as_json
def command(files: tuple[str, ...], as_json: bool) -> None:
    """Prove that strategy FILES are legal for their model, parallelism, modes and executor."""
    from ..errors import one_line
    from ..validate import validate
    from .output import print_json

    found = {file: validate(file) for file in files}
    if as_json:
        print_json(
            {
                "files": [
                    {
                        "path": file,
                        "legal": not problems,
                        "errors": [{"field": p.field, "value": p.value, "reason": p.reason} for p in problems],
                    }
                    for file, problems in found.items()
                ]
            }
        )
    else:
        for file, problems in found.items():
            click.echo(
                f"{one_line(file)}: "
                + (click.style("illegal", fg="red") if problems else click.style("legal", fg="green"))
            )
            for problem in problems:
                value = f" (got {problem.value})" if problem.value else ""
                click.echo(one_line(f"  {problem.field + ': ' if problem.field else ''}{problem.reason}{value}"))
    if any(found.values()):
        sys.exit(2)
