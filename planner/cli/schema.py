"""`commplan schema`: the JSON Schema of a kind of file, for editors."""

from __future__ import annotations

from typing import Any

import click

from ..strategy.command_line.option_types import OutputFile
from ..strategy.command_line.terminal import echo, echo_lines, print_json
from . import options

_KINDS = ("deployment", "hardware", "model", "strategy", "backtest", "calibration", "sensitivity")


@click.command("schema", short_help="Print the JSON Schema of a kind of file, for editors.")
@click.argument("kind", type=click.Choice(_KINDS))
@click.option("-o", "--output", type=OutputFile(), help="Where to write it (default: standard output).")
@options.as_json
def command(kind: str, output: str | None, as_json: bool) -> None:
    """Print the JSON Schema of files of a KIND.

    An editor with a YAML language server completes and checks a file whose first line is
    `# yaml-language-server: $schema=PATH`, the path seen from that file.
    """
    import json

    from ..descriptions.json_schema import DIALECT
    from ..strategy.files import write_text_atomically

    schema = {"$schema": DIALECT, "title": f"commplan {kind}", **schema_of(kind)}
    text = json.dumps(schema, indent=1)
    if output is not None:
        write_text_atomically(output, f"{text}\n")
    if as_json:
        print_json({"schema_file": output} if output is not None else schema)
    elif output is not None:
        echo(f"Written to {output}")
    else:
        echo_lines(text)


def schema_of(kind: str) -> dict[str, Any]:
    """The schema of a kind of file."""
    if kind == "strategy":
        from ..strategy.file.json_schema import strategy_schema

        return strategy_schema()
    from ..backtest.case import Case
    from ..descriptions.base import Spec
    from ..descriptions.calibration import Calibration
    from ..descriptions.deployment import Deployment
    from ..descriptions.hardware import Hardware
    from ..descriptions.json_schema import json_schema
    from ..descriptions.model import Model
    from ..descriptions.sensitivity import Sensitivity

    specs: dict[str, type[Spec]] = {
        "deployment": Deployment,
        "hardware": Hardware,
        "model": Model,
        "backtest": Case,
        "calibration": Calibration,
        "sensitivity": Sensitivity,
    }
    return json_schema(specs[kind])
