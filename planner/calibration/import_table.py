"""Outputs of benchmarks as a calibration: which tool wrote each, what its runs give, and where every table is from."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..descriptions.base import build
from ..descriptions.calibration import CALIBRATION_SCHEMA, COLLECTIVES, Calibration
from ..descriptions.given import check_unit
from ..descriptions.hardware import Hardware
from ..strategy.errors import InputError
from ..strategy.files import read_text
from ..strategy.yaml_file import parse_json
from . import hccl_test, nccl_json, nccl_tests, sglang_benchmark, vllm_benchmark
from .outputs import Declared, Run
from .points import Key, median_table, moved

_TEXTS = {
    "nccl-tests or rccl-tests (size, count, type, time, algbw, busbw)": nccl_tests,
    "hccl_test (data_size, aveg_time, alg_bandwidth, check_result)": hccl_test,
    "vLLM's benchmark_device_communicators.py (Tensor Shape, Tensor Size)": vllm_benchmark,
    "SGLang's benchmark/kernels (msg_size, or Size in a table of ms)": sglang_benchmark,
}
_JSONS: tuple[tuple[Callable[[Any], bool], Callable[[Any, str, Declared], list[Run]]], ...] = (
    (nccl_json.is_nccl, nccl_json.read_nccl),
    (nccl_json.is_rccl, nccl_json.read_rccl),
    (vllm_benchmark.is_json, vllm_benchmark.runs_of_json),
)


@dataclass(frozen=True)
class About:
    """What a calibration says of itself. `source`: where the outputs were published; without it they are the user's."""

    name: str
    machine: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class ImportedTables:
    """A calibration, and what was done to the outputs on the way."""

    calibration: Calibration
    points: int
    left_out: Counter[str]
    unvalidated: int  # points whose results were not checked by the tool
    reordered: int  # points that smoothing will move


def import_files(files: Iterable[str], declared: Declared, about: About, hardware: Hardware | None) -> ImportedTables:
    """The tables of some outputs; InputError for the first thing that is wrong with one."""
    texts = {file: read_text(file) for file in files}
    runs = [(file, run) for file, text in texts.items() for run in _runs(file, text, declared)]
    tables: dict[Key, dict[int, list[float]]] = {}
    launches: dict[Key, str | None] = {}
    left_out: Counter[str] = Counter()
    for file, run in runs:
        assert run.group is not None
        left_out += run.left_out
        for point in run.points:
            key = (point.op, point.impl, point.dtype, run.group)
            if run.launch != launches.setdefault(key, run.launch):
                text = f"one output launches {point.op} {run.launch}, another {launches[key]}: give them apart"
                raise InputError(text, file=file, field="graph")
            tables.setdefault(key, {}).setdefault(point.message_bytes, []).append(point.us)
    for key in [key for key, points in tables.items() if len(points) < 2]:
        left_out[f"of {key[0]} by {key[1]}: one size is no table"] += sum(map(len, tables.pop(key).values()))
    if not tables:
        why = "; ".join(f"{count} points {what}" for what, count in left_out.items()) or "none was found"
        raise InputError(f"no table of two sizes and more is left ({why})", file=runs[0][0])
    data = {**_data(runs, tables, about), "imported": tuple(_imported(runs, texts))}
    calibration = build(Calibration, data, runs[0][0])
    if hardware is not None:
        check_machine(calibration, hardware, runs[0][0])
    unvalidated = sum(len(run.points) for _, run in runs if not run.validated)
    points = sum(len(table.message_bytes) for table in calibration.tables)
    reordered = sum(moved(table.message_bytes, table.latency_us) for table in calibration.tables)
    return ImportedTables(calibration, points, left_out, unvalidated, reordered)


def check_machine(calibration: Calibration, hardware: Hardware, file: str) -> None:
    """Refuse tables that this machine cannot have given: too many ranks, another library, times in another unit."""
    for index, table in enumerate(calibration.tables):
        field = f"tables[{index}]"
        if table.group_size > hardware.num_devices:
            text = f"larger than the machine: {hardware.name} has {hardware.num_devices} devices"
            raise InputError(text, file=file, field="group_size", value=table.group_size)
        check_unit(table, field, hardware, file)
    libraries = {t.impl for t in calibration.tables} & {"nccl", "rccl", "hccl", "gloo"} - {hardware.backend}
    if libraries:
        text = f"{hardware.name} has {hardware.backend}; say which impl a column is with --impl"
        raise InputError(text, file=file, field="--hardware", value=sorted(libraries)[0])
    if (refused := calibration.span_refused(hardware.devices_per_node)) is not None:
        raise InputError(refused, file=file, field="--hardware", value=hardware.name)


# ---- one file --------------------------------------------------------------------------------------------------------


def _runs(file: str, text: str, declared: Declared) -> list[Run]:
    if re.match(r"\s*(?:\{|\[\s*\{)", text):  # mpirun's [1,0] is none
        return _json_runs(text, file, declared)
    found = [tool for tool, reader in _TEXTS.items() if reader.is_text(text)]
    if len(found) > 1:
        raise InputError(f"outputs of several tools in one file: {'; '.join(found)}", file=file)
    if not found:
        raise InputError(f"no output that is known; accepted: {'; '.join(_TEXTS)}; or their JSON", file=file)
    runs: list[Run] = _TEXTS[found[0]].runs_of_text(text, file, declared)
    return runs


def _json_runs(text: str, file: str, declared: Declared) -> list[Run]:
    try:
        data = parse_json(text)
    except InputError as error:
        raise error.in_file(file) from None
    for is_it, read in _JSONS:
        if is_it(data):
            return read(data, file, declared)
    accepted = "nccl-tests -J, rccl-tests -Z json, benchmark_device_communicators.py --output-json"
    raise InputError(f"no JSON that is known; accepted: {accepted}", file=file)


# ---- the calibration -------------------------------------------------------------------------------------------------


def _data(runs: list[tuple[str, Run]], tables: dict[Key, dict[int, list[float]]], about: About) -> dict[str, Any]:
    tools = ", ".join(dict.fromkeys(" ".join(filter(None, (run.tool, run.version))) for _, run in runs))
    libraries = ", ".join(dict.fromkeys(run.library for _, run in runs if run.library))
    devices = ", ".join(dict.fromkeys(run.devices for _, run in runs if run.devices))
    machine = about.machine or devices
    if not machine:
        text = "no output names its devices; say with --machine what they were, as in '8 x H100 SXM'"
        raise InputError(text, file=runs[0][0], field="--machine", kind="missing_key")
    names = ", ".join(dict.fromkeys(Path(file).name for file, _ in runs))
    ops = {op for op, *_ in tables}
    return {
        "schema": CALIBRATION_SCHEMA,
        "name": about.name,
        "machine": machine,
        "library": libraries or tools,
        "provenance": "table" if about.source else "measured",
        "source": f"{about.source} ({tools}: {names})" if about.source else f"{tools}: {names}",
        "notes": " ".join(_notes(runs)),
        "ops": tuple(op for op in COLLECTIVES if op in ops),
        "tables": tuple(median_table(key, tables[key]) for key in sorted(tables, key=_order)),
    }


def _notes(runs: list[tuple[str, Run]]) -> Iterator[str]:
    yield "message_bytes is the whole buffer."
    for launch in sorted({run.launch for _, run in runs if run.launch}):
        yield f"Launched {launch}."
    for buffers in sorted({run.buffers for _, run in runs if run.buffers}):
        yield f"Times {buffers}."
    if any(not run.validated for _, run in runs):
        yield "Results were not checked by the tool in every run."


def _imported(runs: list[tuple[str, Run]], texts: dict[str, str]) -> Iterator[dict[str, Any]]:
    seen = []
    for file, run in runs:
        digest = hashlib.sha256(texts[file].encode()).hexdigest()[:16]
        entry = {
            "file": Path(file).name,
            "sha256": digest,
            "tool": run.tool,
            "version": run.version,
            "group_size": run.group,
            "nodes": run.nodes,
        }
        if entry not in seen:
            seen.append(entry)
            yield entry


def _order(key: Key) -> tuple[int, int, str, str]:
    op, impl, dtype, group_size = key
    return COLLECTIVES.index(op), group_size, impl, dtype
