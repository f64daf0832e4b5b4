"""`commplan import-model`: a Hugging Face config.json becomes a model file."""

from __future__ import annotations

import click

from ..strategy.command_line.option_types import FILLED, Name, OutputFile
from ..strategy.command_line.terminal import echo
from . import options


@click.command("import-model", short_help="Make a model file from a Hugging Face config.json.")
@click.argument("config", type=FILLED)
@click.option("-o", "--output", type=OutputFile(), help="Where to write the model file (default: standard output).")
@click.option("--name", type=Name(), help="Name of the model (default: from the path).")
@options.as_json
def command(config: str, output: str | None, name: str | None, as_json: bool) -> None:
    """Make a model file from CONFIG, a Hugging Face config.json."""
    from pathlib import Path

    from ..descriptions.base import build
    from ..descriptions.loader import read_model_mapping
    from ..descriptions.model import Model
    from ..strategy.files import shown, write_text_atomically
    from ..strategy.yaml_file import flow_text
    from .output import print_json

    fields = read_model_mapping(Path(config))
    if name is not None:
        fields["name"] = name
    model = build(Model, fields, config)
    given = model.model_dump(mode="json", by_alias=True, exclude_defaults=True) | {"schema": fields["schema"]}
    ordered = {"schema": given.pop("schema"), **given}
    if output is not None:
        write_text_atomically(output, "".join(f"{key}: {flow_text(value)}\n" for key, value in ordered.items()))
    if as_json:
        print_json({"model_file": output, "model": ordered})
    elif output is None:
        for key, value in ordered.items():
            echo(f"{key}: {flow_text(value)}", whole=True)
    else:
        echo(f"{model.name} ({model.architecture}, {model.num_hidden_layers} layers) written to {shown(output)}")
