"""From samples on every rank to a calibration file."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from statistics import median
from typing import Any

from ..descriptions.base import build
from ..descriptions.calibration import CALIBRATION_SCHEMA, COLLECTIVES, Calibration
from ..descriptions.deployment import DTYPE_BYTES
from ..executors import Executor
from ..strategy.composed_points import parse_point
from ..strategy.errors import InputError
from ..strategy.yaml_file import flow_text, scalar_text
from .needed_points import FUSED_RIVAL, RIVALS, Point

Samples = dict[Point, list[list[float]]]  # per rank; empty where a kernel cannot run there
HostSamples = dict[str, list[list[float]]]  # of a launch and of calls by impl, per rank
_LAUNCH = "launch"
_Points = list[tuple[int, float, float]]  # size, us, relative spread
_ONE_KERNEL = (
    *("op", "algorithm", "wire", "scale_group", "pieces"),
    *("impl", "dtype", "group_size", "attn_dp", "width"),
)


def calibration_of(
    samples: Samples,
    executor: Executor,
    backend: str,
    name: str,
    machine: dict[str, str],
    source: str,
    host: HostSamples | None = None,
) -> Calibration:
    """The tables. A point is the median of its samples, on the slowest rank; its spread is that of the samples.

    A point that some rank has no sample of is left out: what cannot run on a machine gets no table there.
    """
    collectives: dict[tuple[Any, ...], _Points] = {}
    kernels: dict[tuple[Any, ...], _Points] = {}
    gemms: dict[tuple[Any, ...], _Points] = {}
    own: dict[tuple[Any, ...], _Points] = {}
    for (kind, what, group_size, dtype, rows, width, columns), by_rank in samples.items():
        if not all(by_rank):
            continue
        time, spread = _summary(by_rank)
        message_bytes = int(rows * width * DTYPE_BYTES[dtype])
        if kind == "collective" or kind in RIVALS:
            impl = backend if kind == "collective" else kind
            works_on_rows = width if kind == FUSED_RIVAL else None
            table = (what, impl, dtype, group_size, works_on_rows)
            collectives.setdefault(table, []).append((message_bytes, time, spread))
        elif kind == "kernel":
            names = _kernels_of(executor, backend, what)
            kernels.setdefault((names, group_size, dtype, width), []).append((message_bytes, time, spread))
        elif kind in executor.impls:
            key = (*_told(executor, kind, what), kind, dtype, group_size, columns or None, width)
            own.setdefault(key, []).append((message_bytes, time, spread))
        else:
            gemms.setdefault((width, columns, dtype), []).append((rows, time, spread))
    tables = (
        *_tables(collectives, ("op", "impl", "dtype", "group_size", "width"), "message_bytes"),
        *_tables({k: p for k, p in own.items() if len(p) > 1}, _ONE_KERNEL, "message_bytes"),
    )
    if not tables:
        raise InputError("no op of these can run on this machine, so that there is nothing to write", file=name)
    data = {
        "schema": CALIBRATION_SCHEMA,
        "name": name,
        "machine": f"{machine['ranks']} x {machine['device']}",
        "library": ", ".join([*([machine["library"]] if "library" in machine else []), f"torch {machine['torch']}"]),
        "provenance": "measured",
        "source": source,
        "ops": [op for op in COLLECTIVES if any(op == table["op"] for table in tables)],
        "fingerprint": machine,
        "tables": tables,
        "kernels": _tables(kernels, ("kernels", "group_size", "dtype", "width"), "message_bytes"),
        "gemms": _tables(gemms, ("inner", "columns", "dtype"), "rows"),
        "host": _host(host) if host else None,
    }
    return build(Calibration, data, name)


def _told(executor: Executor, impl: str, name: str) -> tuple[str | int | None, ...]:
    """What an op was told that is measured whole: itself, its algorithm, its format, its pieces."""
    if executor.impls[impl].is_composed:
        op = parse_point(name, impl)
        return op.name, op.algorithm, op.wire_name, op.scale_group, op.pieces
    op_name, algorithm, wire, scale_group = (*name.split("."), None, None, None)[:4]
    return op_name, algorithm, wire, scale_group, None


def _summary(by_rank: list[list[float]]) -> tuple[float, float]:
    """(median on the slowest rank, half of the spread between quartiles over the median)."""
    ordered = sorted(max(by_rank, key=median))
    middle = median(ordered)
    low, high = ordered[len(ordered) // 4], ordered[-1 - len(ordered) // 4]
    return middle, (high - low) / 2 / middle


def _host(samples: HostSamples) -> dict[str, Any]:
    """Medians on the slowest rank."""
    medians = {what: round(_summary(by_rank)[0], 2) for what, by_rank in samples.items() if all(by_rank)}
    return {"launch_us": medians.pop(_LAUNCH), "calls": medians}


def _kernels_of(executor: Executor, backend: str, step: str) -> tuple[str, ...]:
    kernels = executor.steps(backend).get(step)
    return (step,) if kernels is None else tuple(kernel.name for kernel in kernels)


def _tables(found: dict[tuple[Any, ...], _Points], keys: Iterable[str], size: str) -> Any:
    tables = []
    for values, points in found.items():
        ordered = sorted(points)
        tables.append(
            {
                **dict(zip(keys, values, strict=True)),
                size: tuple(p[0] for p in ordered),
                "latency_us": tuple(round(p[1], 3) for p in ordered),
                "relative_spread": round(median(p[2] for p in ordered), 4),
            }
        )
    return tuple(tables)


def dump(calibration: Calibration) -> str:
    """The text of the file."""
    return "\n".join(_lines(calibration)) + "\n"


def _lines(calibration: Calibration) -> Iterator[str]:
    data = calibration.model_dump(by_alias=True, exclude_none=True)
    for key, value in data.items():
        if key in ("tables", "kernels", "gemms", "imported"):
            if value:
                yield f"{key}:"
            for table in value:
                text = f"- {flow_text(table)}"
                yield from textwrap.wrap(
                    text, 120, subsequent_indent="   ", break_long_words=False, break_on_hyphens=False
                )
        else:
            yield f"{key}: {flow_text(value) if isinstance(value, dict | tuple) else scalar_text(value)}"
