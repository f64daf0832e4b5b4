"""`commplan calibrate`: measure this machine, and write what was measured as a calibration file."""

from __future__ import annotations

import json
import shlex
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..strategy.command_line.option_types import Name, OutputFile, Seconds
from ..strategy.command_line.terminal import echo
from ..strategy.errors import one_line
from . import options

if TYPE_CHECKING:
    from ..calibration.needed_points import Point
    from ..descriptions.hardware import Hardware
    from ..descriptions.setup import Setup

_RUNTIME = "commplan.runtime.calibration"  # known by name alone: planning needs no torch
_BEGUN = ('{"machine": ', '{"key": ')  # how the lines of the samples so far begin


@click.command("calibrate", short_help="Measure this machine for some deployments and write a calibration file.")
@click.argument("deployments", nargs=-1, type=options.DEPLOYMENT)
@click.option("-o", "--output", type=OutputFile(), help="The calibration file to write.")
@click.option(
    "--import",
    "imported",
    metavar="SOURCE:SYSTEM",
    help="Measure nothing: take the tables of an installed package, as in aiconfigurator:h200_sxm.",
)
@click.option("--name", type=Name(), help="Name of the calibration (default: the file's).")
@click.option(
    "--seconds",
    type=Seconds(least=1.0),
    default=120.0,
    show_default=True,
    help="Stop after the round of measurements in which this time is over; one round is always completed.",
)
@click.option(
    "--only",
    multiple=True,
    type=Name(),
    help="Measure this op alone, as in int8_all_reduce or all_reduce.pushed, or this impl, as in host_staged_norm or "
    "host_staged_norm.int8_all_reduce, for a table beside those there are. Repeatable.",
)
@click.option("--fresh", is_flag=True, help="Forget what an interrupted run has measured.")
@options.overrides
@options.as_json
def command(
    deployments: tuple[str, ...],
    output: str | None,
    imported: str | None,
    name: str | None,
    seconds: float,
    only: tuple[str, ...],
    fresh: bool,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure the collectives, kernels and GEMMs that DEPLOYMENTS (presets or paths) ask about, on all their tp ranks.

    Name the file under `calibrations` of a hardware file, before any published table, and plan again. On GPUs times are
    those of CUDA graphs: launches from the host are not in them. What those cost within an eager forward is measured
    apart, in a few seconds.
    """
    if imported is not None and only:
        raise click.UsageError("--only says what to measure, and --import measures nothing")
    if imported is not None:
        _import(imported, deployments, output, name, as_json)
        return
    if not deployments or output is None:
        raise click.UsageError(
            "name the DEPLOYMENTS to measure for and the file to write (-o), or --import SOURCE:SYSTEM"
        )
    from ..calibration.needed_points import check_measurable, points_of
    from ..calibration.result import calibration_of, dump
    from ..descriptions.loader import load_setup
    from ..strategy.files import is_standard_output, name_target, shown, write_text_atomically
    from .output import print_json

    stem = name or "calibration" if is_standard_output(output) else output
    partial = Path(f"{stem}.partial")
    name_target(partial, "--output")
    setups = [load_setup(deployment, overrides) for deployment in deployments]
    check_measurable(setups)
    setup, points = setups[0], _only(only, points_of(setups))
    check_host = import_module("commplan.runtime.bound.host").check_host
    check_host(setup.hardware.backend, setup.parallelism.tp)
    _check_own(partial)
    if fresh:
        partial.unlink(missing_ok=True)
    by_rank = _measured(setup, points, seconds, partial)
    machine = by_rank[0]["machine"]
    samples = {p: [rank["samples"][" ".join(map(str, p))] for rank in by_rank] for p in points}
    # A table beside others has none of its own: theirs are of all that they ask about.
    host = {what: [rank["host"].get(what, []) for rank in by_rank] for what in by_rank[0]["host"] if not only}
    source, called = _command(deployments, overrides, only), name or one_line(Path(stem).stem)
    backend = setup.hardware.backend
    calibration = calibration_of(samples, setup.executor, backend, called, machine, source, host)
    write_text_atomically(output, dump(calibration))
    partial.unlink(missing_ok=True)
    tables = len(calibration.tables) + len(calibration.kernels) + len(calibration.gemms)
    absent = [p for p in points if not all(samples[p])]
    measured = len(points) - len(absent)
    if as_json:
        print_json({"calibration_file": output, "tables": tables, "points": measured, "not_measured": len(absent)})
        return
    echo(f"{measured} points in {tables} tables, written to {shown(output)}.")
    if absent:
        impls = ", ".join(dict.fromkeys(kind for kind, *_ in absent))
        echo(f"{len(absent)} points of {impls} cannot run on this machine: no plan will have them here.")
    _print_use(output, setup.hardware if only else None)


def _print_use(output: str, beside: Hardware | None = None) -> None:
    """Where the file is named: in that of a machine, or before the tables that one has."""
    from ..strategy.files import is_standard_output
    from .tables_of_a_machine import set_before

    file = "FILE" if is_standard_output(output) else output
    if beside is not None:
        echo(f"Plan with it: commplan plan DEPLOYMENT --set {shlex.quote(set_before(file, beside))}")
        return
    echo(f"Name it in a hardware file: calibrations: [{{file: {file}}}]")


def _only(ops: tuple[str, ...], points: list[Point]) -> list[Point]:
    """The points of some ops, named with their algorithm and format or by what these begin with, behind an impl or
    without one, or of an impl; all for no ops."""
    from ..strategy.errors import InputError

    wanted: set[Point] = set()
    of_ops = [point for point in points if point[0] not in ("kernel", "gemm")]
    named = [(point[1], point) for point in of_ops]
    named += [(f"{point[0]}.{point[1]}", point) for point in of_ops if point[0] != "collective"]
    for op in ops:
        found = {point for name, point in named if f"{name}.".startswith(f"{op}.")}
        if not found:
            first, every = op.partition(".")[0], [name for name, _ in named]
            alike = [name for name in every if name.partition(".")[0] == first]
            names = ", ".join(dict.fromkeys(alike or (name.partition(".")[0] for name in every)))
            raise InputError(f"is not among what these deployments ask about: {names}", field="--only", value=op)
        wanted |= found
    return [point for point in points if point in wanted or not ops]


def _command(deployments: tuple[str, ...], overrides: tuple[str, ...], only: tuple[str, ...]) -> str:
    """What a shell takes to measure the same points: they follow from the deployments with their overrides."""
    given = [part for text in overrides for part in ("--set", text)]
    given += [part for op in only for part in ("--only", op)]
    return one_line(shlex.join(["commplan", "calibrate", *deployments, *given]))


def _import(source: str, deployments: tuple[str, ...], output: str | None, name: str | None, as_json: bool) -> None:
    """Write the tables of an installed package as a calibration file."""
    from ..calibration.aiconfigurator import import_system
    from ..calibration.result import dump
    from ..strategy.errors import InputError
    from ..strategy.files import shown, write_text_atomically
    from .output import print_json

    kind, _, system = source.partition(":")
    if kind != "aiconfigurator" or not system:
        raise InputError("a source is written aiconfigurator:SYSTEM", field="--import", value=source)
    if deployments:
        raise InputError(
            "an import measures nothing: leave the deployments out", field="--import", value=deployments[0]
        )
    found = import_system(system)
    calibration = found.calibration.model_copy(update={"name": name} if name else {})
    target = output or f"{calibration.name}.yaml"
    write_text_atomically(target, dump(calibration))
    if as_json:
        print_json(
            {
                "calibration_file": target,
                "library": calibration.library,
                "tables": len(calibration.tables),
                "points": found.points,
                "left_out": found.left_out,
                "smoothed": found.reordered,
            }
        )
        return
    size = f"{found.points} points in {len(calibration.tables)} tables"
    echo(f"{calibration.library} of {system}: {size}, written to {shown(target)}.")
    if found.left_out:
        echo(f"{found.left_out} rows of other ops, types or launches are left out.")
    if found.reordered:
        echo(
            f"{found.reordered} points will be smoothed when costs are looked up: lone outliers to the median of "
            "three, reversed neighbours to their geometric mean."
        )
    _print_use(target)


def _measured(setup: Setup, points: list[Point], seconds: float, partial: Path) -> list[dict[str, Any]]:
    """What every rank measured, by rank."""
    measure = import_module(f"{_RUNTIME}.measure").measure_rank
    run_ranks = import_module("commplan.runtime.ranks.spawning").run_ranks
    known, machine = _known(partial)
    if known:
        echo(f"Going on from {partial}: {len(known)} points are there already.", err=True)
    backend, ranks = setup.hardware.backend, setup.parallelism.tp
    echo(f"Measuring {len(points)} points on {ranks} ranks over {backend}", err=True)
    arguments = ([list(point) for point in points], backend, seconds, known, machine, str(partial))
    found: list[dict[str, Any]] = run_ranks(measure, ranks, *arguments, timeout_s=max(600.0, 4 * seconds))
    return found


def _check_own(partial: Path) -> None:
    """Raise InputError unless a file that will be appended to, and deleted in the end, is that of an earlier run."""
    from ..strategy.errors import InputError

    lines = _lines(partial)
    if not all(any(line[: len(begun)] == begun[: len(line)] for begun in _BEGUN) for line in lines if line):
        raise InputError(
            "is not what an interrupted run has left, and a run keeps its samples there; move it away",
            file=str(partial),
        )


def _lines(partial: Path) -> list[str]:
    """Lines of the samples of an interrupted run; its own file, so that it is no input which must not be written."""
    return partial.read_bytes().decode("utf-8", "replace").splitlines() if partial.is_file() else []


def _known(partial: Path) -> tuple[dict[str, list[float]], dict[str, str] | None]:
    """Samples of an interrupted run and its machine; a line that was cut off is left out."""
    found: dict[str, list[float]] = {}
    machine: dict[str, str] | None = None
    for line in _lines(partial):
        try:
            entry = json.loads(line)
            if "machine" in entry:
                machine = {str(key): str(value) for key, value in entry["machine"].items()}
            else:
                found.setdefault(entry["key"], []).extend(float(s) for s in entry["samples"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return found, machine
