"""A machine in plain numbers, as `--set` gives it: figures without a source, and tables without a file.

A plain number where a figure belongs becomes an `assumed` one; a table counts as `measured`, since a user who types one
has measured it, and stands before the tables of the machine's own calibrations. Both say that `--set` gave them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from ..executors import Executor
from ..strategy.errors import InputError, did_you_mean
from ..strategy.op_kinds import COLLECTIVES
from .base import Figure, Spec, build, spec_of
from .calibration import Calibration, Table
from .hardware import Hardware

SOURCE = "given by --set"
TABLES = "hardware.tables"
_FASTEST = 4
"""How many times the bandwidth of a link a table may claim. A switch that adds halves what travels, and a data sheet
may count one direction; beyond that, a number is in another unit."""


def with_figures(value: Any, keys: Sequence[str], spec: type[Spec] = Hardware) -> Any:
    """What `--set` gave at `keys` of a description, with every plain number that should be a figure made one."""
    found = spec_of(spec, keys)
    if found is None or value is None or isinstance(value, list):
        return value
    if issubclass(found, Figure):
        return value if isinstance(value, dict) else {"value": value, "provenance": "assumed", "source": SOURCE}
    if not isinstance(value, dict):
        return value
    return {key: with_figures(inner, (key,), found) for key, inner in value.items()}


def given_tables(tables: Any, hardware: Hardware, executor: Executor, dtype: str) -> Calibration:
    """The calibration that `--set hardware.tables=[...]` stands for; raises InputError for the first thing wrong.

    dtype  of a table that names none: that of the activations
    """
    if not isinstance(tables, list) or not tables:
        text = "a list of tables is expected, each {op, impl, group_size, message_bytes, latency_us}"
        raise InputError(text, file="--set", field=TABLES, value=tables)
    named = [{"dtype": dtype, **table} if isinstance(table, dict) else table for table in tables]
    data = {
        "schema": "commplan/calibration/v1",
        "name": SOURCE,
        "machine": hardware.name,
        "library": hardware.backend,
        "provenance": "measured",
        "source": SOURCE,
        "ops": [],
        "tables": named,
    }
    try:
        calibration = build(Calibration, data, "--set")
    except InputError as error:
        error.field = f"hardware.{error.field}"
        raise
    for index, table in enumerate(calibration.tables):
        _check(table, f"{TABLES}[{index}]", hardware, executor)
    return calibration


def _check(table: Table, field: str, hardware: Hardware, executor: Executor) -> None:
    capability = executor.ops.get(table.op)
    accepted = {hardware.backend, *(capability.impls if capability is not None else ())}
    accepted = {name for name in accepted if executor.can.runs_beside(name, hardware.backend)}
    if table.impl not in accepted:
        text = f"{executor.name} has no such impl of {table.op} here; {did_you_mean(table.impl, accepted)}"
        raise InputError(text, file="--set", field=f"{field}.impl", value=table.impl)
    if table.group_size > hardware.num_devices:
        text = f"larger than the machine: {hardware.name} has {hardware.num_devices} devices"
        raise InputError(text, file="--set", field=f"{field}.group_size", value=table.group_size)
    for before, size in pairwise(table.message_bytes):
        if size <= before:
            text = f"sizes rise from one to the next, and this one comes after {before}"
            raise InputError(text, file="--set", field=f"{field}.message_bytes", value=size)
    check_unit(table, field, hardware)


def check_unit(table: Table, field: str, hardware: Hardware, file: str = "--set") -> None:
    """Refuse times that no link of this machine could give: milliseconds or seconds in a list of microseconds."""
    if table.op not in COLLECTIVES:
        return
    inside = table.group_size <= hardware.devices_per_node
    link = hardware.links.intra_node if inside else hardware.links.inter_node
    if link is None:
        return
    received = COLLECTIVES[table.op].received(table.group_size) * table.message_bytes[-1]
    rate, fastest = received / table.latency_us[-1] / 1e3, link.bandwidth_gb_per_s.value * _FASTEST
    if rate > fastest:
        text = (
            f"{table.message_bytes[-1]} bytes in this time are {rate:,.0f} GB/s over a link of "
            f"{link.bandwidth_gb_per_s.value:g}: latencies are in us"
        )
        raise InputError(text, file=file, field=f"{field}.latency_us", value=table.latency_us[-1])


def unused_tables(calibration: Calibration, sizes: Sequence[int]) -> list[str]:
    """A note for each table of a group that this deployment has not."""
    groups = ", ".join(str(size) for size in sorted(set(sizes)))
    return [
        f"{TABLES}[{index}] is of {table.group_size} ranks, and the groups here have {groups}: nothing is priced by it"
        for index, table in enumerate(calibration.tables)
        if table.group_size not in sizes
    ]


def unused_imports(calibrations: Iterable[Calibration], sizes: Sequence[int]) -> list[str]:
    """A note for each calibration of imported outputs that has no table of any group of this deployment."""
    groups = ", ".join(str(size) for size in sorted(set(sizes)))
    found = []
    for calibration in calibrations:
        ranks = sorted({table.group_size for table in calibration.tables})
        if calibration.imported and groups and not set(ranks) & set(sizes):
            imported = ", ".join(map(str, ranks))
            found.append(
                f"{calibration.name} is of {imported} ranks, and the groups here have {groups}: nothing is priced by it"
            )
    return found
