"""`commplan rotate`: write a checkpoint whose residual stream is rotated, so that quantised sums lose less."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from commplan.planner.strategy.command_line.option_types import FILLED, OutputFolder, Seed
from commplan.planner.strategy.command_line.terminal import echo, print_json

if TYPE_CHECKING:
    from ..rotation.checkpoint import Progress, Source
    from ..rotation.hadamard import Rotation


@click.command("rotate", short_help="Write a checkpoint with its stream rotated, so that quantised sums lose less.")
@click.argument("checkpoint", metavar="MODEL", type=FILLED)
@click.option("-o", "--output", type=OutputFolder(), required=True, help="Folder to write; a new one.")
@click.option(
    "--block",
    type=FILLED,
    default="full",
    show_default=True,
    help="Columns that are mixed with each other: a power of two, or full.",
)
@click.option("--seed", type=Seed(), default=0, show_default=True, help="Seed of the random signs of channels.")
@click.option("--without-mtp", is_flag=True, help="Leave out layers that draft for the model.")
@click.option("--force", is_flag=True, help="Replace a checkpoint that is there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(checkpoint: str, output: str, block: str, seed: int, without_mtp: bool, force: bool, as_json: bool) -> None:
    """Write the checkpoint in folder MODEL with its residual stream rotated by a Hadamard matrix.

    Every server loads it as it loads MODEL, and gets the same logits but for the rounding of the new weights. What
    stood out in single channels is spread over all of them, so sums that are quantised lose less. Plans for it need a
    sensitivity file of its own.
    """
    from commplan.planner.strategy.folders import check_new_folder, new_folder
    from commplan.planner.strategy.packages import check_packages

    check_new_folder(output, "--output", apart_from=checkpoint, replaces="config.json" if force else None)
    check_packages("torch", "transformers", "safetensors", extra="runtime")
    from ..rotation.checkpoint import look_through, write_rotated

    source = look_through(checkpoint, without_mtp=without_mtp)
    rotation = _rotation(source.hidden_size, block, seed)
    _check_room(source, output)
    with new_folder(output) as folder:
        written = write_rotated(source, rotation, folder, _progress(source))
    if as_json:
        print_json(_json(source, rotation, output, written))
    else:
        _print(source, rotation, output, written)


def _rotation(width: int, block: str, seed: int) -> Rotation:
    from ..errors import RefusedError
    from ..rotation.hadamard import Rotation, no_block

    if block != "full" and not (block.isascii() and block.isdecimal() and len(block) < 10):
        raise RefusedError(no_block(width), field="--block", value=block)
    return Rotation(width, width if block == "full" else int(block), seed)


def _check_room(source: Source, output: str) -> None:
    """Refuse a disk that cannot hold the weights, before an hour is spent on most of them."""
    import shutil

    from commplan.planner.strategy.errors import InputError

    needed = sum(file.path.stat().st_size for file in source.files)
    free = shutil.disk_usage(Path(output).resolve().parent).free
    if free < needed:
        reason = f"its disk has {_size(free)} left, and {_size(needed)} are written"
        raise InputError(reason, file=output, field="--output", kind="unwritable")


def _progress(source: Source) -> Progress:
    total = sum(file.path.stat().st_size for file in source.files)

    def tell(done: int, files: int, written: int) -> None:
        echo(f"{done} of {files} files, {_size(written)} of about {_size(total)}", err=True)

    return tell


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _json(source: Source, rotation: Rotation, output: str, written: int) -> dict[str, object]:
    return {
        "checkpoint": output,
        "hidden_size": rotation.width,
        "block": rotation.block,
        "seed": rotation.seed,
        "files": len(source.files),
        "bytes": written,
        "untied": source.tied,
        "without_tensors": len(source.drafts),
        "not_copied": source.left_out,
    }


def _print(source: Source, rotation: Rotation, output: str, written: int) -> None:
    block = "the whole row" if rotation.block == rotation.width else f"blocks of {rotation.block} columns"
    echo(f"Written to {output}: {_size(written)}, {rotation.width} columns rotated in {block}")
    if source.tied:
        echo("Its head is no longer the embedding, so it has a tensor more; config.json says so.")
    if source.drafts:
        echo(f"Left out: {len(source.drafts)} tensors of layers that draft for the model.")
    if source.left_out:
        echo(f"Not copied, as they may hold the old weights: {', '.join(source.left_out)}")
    echo("What was known of the old one's sensitivity is not known of this one: measure it anew.")
