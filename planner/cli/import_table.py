"""`commplan import-table`: what a benchmark of collectives printed becomes a calibration file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..strategy.command_line.option_types import FILLED, Count, Name, OutputFile
from ..strategy.command_line.terminal import echo
from ..strategy.op_kinds import COLLECTIVES
from . import options

if TYPE_CHECKING:
    from ..calibration.import_table import ImportedTables
    from ..descriptions.hardware import Hardware

MAX_RANKS = 4096
_OPS = tuple(COLLECTIVES)


@click.command("import-table", short_help="Make a calibration file from the output of a benchmark of collectives.")
@click.argument("files", nargs=-1, required=True, type=FILLED)
@click.option("-o", "--output", type=OutputFile(), help="The calibration file to write.")
@click.option("--group", type=Count(2, MAX_RANKS), help="Ranks of the runs; checked where an output says it.")
@click.option(
    "--nodes", type=Count(1, MAX_RANKS), help="Nodes that the ranks are on; needed where an output has several hosts."
)
@click.option("--op", type=click.Choice(_OPS), help="The collective, where an output does not name it.")
@click.option("--dtype", type=click.Choice(("bf16", "fp16", "fp32", "int8")), help="The type, where none is named.")
@click.option("--in-place", is_flag=True, help="Take the times of one buffer for both ends (nccl-tests, rccl-tests).")
@click.option(
    "--impl",
    "impls",
    multiple=True,
    type=FILLED,
    metavar="COLUMN=IMPL",
    help="The impl that a column or a library is, as in ca_1stage=custom_one_shot. Repeatable.",
)
@click.option("--hardware", type=FILLED, help="The machine (preset or path) that tables are checked against.")
@click.option("--machine", type=Name(), help="The devices in words (default: as the outputs name them).")
@click.option("--source", type=Name(), help="Where the outputs were published; without it they count as your own.")
@click.option("--name", type=Name(), help="Name of the calibration (default: the file's).")
@click.option("--excerpt", is_flag=True, help="Accept a part of an output: what closes it is not asked for.")
@options.as_json
def command(
    files: tuple[str, ...],
    output: str | None,
    group: int | None,
    nodes: int | None,
    op: str | None,
    dtype: str | None,
    in_place: bool,
    impls: tuple[str, ...],
    hardware: str | None,
    machine: str | None,
    source: str | None,
    name: str | None,
    excerpt: bool,
    as_json: bool,
) -> None:
    """Make a calibration file from FILES, outputs of one group of ranks or of several.

    Read are nccl-tests and rccl-tests (what they print, or their JSON), Ascend's hccl_test, vLLM's
    benchmark_device_communicators.py (or its JSON), and SGLang's benchmark/kernels/all_reduce and all_gather.
    Units, number of ranks, sizes and results are checked; what is cut off or mixed is refused.
    """
    if output is None:
        raise click.UsageError("name the calibration file to write (-o)")
    from pathlib import Path

    from ..calibration.import_table import About, import_files
    from ..calibration.outputs import Declared
    from ..calibration.result import dump
    from ..strategy.files import write_text_atomically
    from .output import print_json
    from .tables_of_a_machine import set_before

    declared = Declared(op, dtype, group, nodes, in_place, excerpt, _renamed(impls))
    about = About(name or Path(output).stem, machine, source)
    there = _hardware(hardware) if hardware is not None else None
    found = import_files(files, declared, about, there)
    write_text_atomically(output, dump(found.calibration))
    use = set_before(output, there)
    if as_json:
        print_json(_json(found, output, use))
    else:
        _print(found, output, use)


def _renamed(texts: tuple[str, ...]) -> dict[str, str]:
    from ..strategy.errors import InputError

    renamed = {}
    for text in texts:
        column, separator, impl = text.partition("=")
        if not separator or not column.strip() or not impl.strip():
            raise InputError("COLUMN=IMPL is expected", field="--impl", value=text)
        if column.strip() in renamed:
            raise InputError("is given twice", field="--impl", value=column.strip())
        renamed[column.strip()] = impl.strip()
    return renamed


def _hardware(name: str) -> Hardware:
    from ..descriptions.base import build
    from ..descriptions.hardware import Hardware
    from ..descriptions.loader import find
    from ..strategy.yaml_file import read_mapping

    path = find(name, "hardware", None, "--hardware")
    return build(Hardware, read_mapping(path), str(path))


def _json(found: ImportedTables, output: str, use: str) -> dict[str, object]:
    calibration = found.calibration
    return {
        "calibration_file": output,
        "library": calibration.library,
        "provenance": calibration.provenance,
        "imported": [each.model_dump() for each in calibration.imported or ()],
        "tables": len(calibration.tables),
        "points": found.points,
        "left_out": dict(found.left_out),
        "not_validated": found.unvalidated,
        "smoothed": found.reordered,
        "set": use,
    }


def _print(found: ImportedTables, output: str, use: str) -> None:
    import shlex

    for table in found.calibration.tables:
        sizes = table.message_bytes
        span = f"{sizes[0]} to {sizes[-1]} bytes in {table.latency_us[0]:g} to {table.latency_us[-1]:g} us"
        echo(f"  {table.op} by {table.impl}, {table.dtype}, {table.group_size} ranks: {len(sizes)} sizes, {span}")
    count = len(found.calibration.tables)
    echo(f"{found.points} points in {count} {'table' if count == 1 else 'tables'}, written to {output}.")
    for what, count in found.left_out.items():
        echo(f"Left out: {count} {'point' if count == 1 else 'points'} {what}.")
    if found.unvalidated:
        echo(f"The tool did not check the results of {found.unvalidated} points.")
    if found.reordered:
        echo(
            f"{found.reordered} points will be smoothed when costs are looked up: lone outliers to the median of "
            "three, reversed neighbours to their geometric mean."
        )
    echo(f"Plan with it: commplan plan DEPLOYMENT --set {shlex.quote(use)}")
