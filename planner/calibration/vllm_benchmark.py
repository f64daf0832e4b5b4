"""vLLM's benchmarks/kernels/benchmark_device_communicators.py: a table in ms, or the JSON of --output-json.

Each column is one way to sum, in a CUDA graph. Sizes are taken from the shapes, which are exact; the size in MB (2^20
bytes) and the best column at the end of a row check them. The table is read to 1 us, the JSON in full.
"""

from __future__ import annotations

import re
from typing import Any

from ..strategy.errors import InputError
from ..strategy.op_kinds import ALL_REDUCE
from .outputs import (
    BYTES,
    Declared,
    Point,
    Run,
    check_declared_impls,
    is_number,
    is_whole,
    lines_of,
    refuse,
    settle,
    time_of,
)

TYPES = {"torch.bfloat16": "bf16", "torch.float16": "fp16", "torch.float32": "fp32"}
IMPLS = {
    "pynccl": "nccl",
    "pynccl-symm": "nccl_symm",
    "ca_1stage": "vllm_one_shot",
    "ca_2stage": "vllm_two_shot",
    "push_ar": "one_shot_push",
    "symm_mem_multimem": "multimem",
    "symm_mem_two_shot": "torch_two_shot",
    "flashinfer_trtllm": "flashinfer",
    "flashinfer_mnnvl": "flashinfer_mnnvl",
}
_HEADER = re.compile(r"World Size: (\d{1,6}), Data Type: (\S+?), Hidden Size: (\d{1,9})")
_ROW = re.compile(r"^\(([1-9]\d{0,8}), ([1-9]\d{0,8})\)\s+(\d+\.\d+) (\S+)\s+(.*)$", re.ASCII)
_BEST = re.compile(r"(\S+) \((?:[\d.]+x|N/A)\)\s*$")
_MILLISECONDS = "All times are in milliseconds"
_ROUNDED_MS = 0.00101
_MIB = 2**20


def is_text(text: str) -> bool:
    """True for a table of this tool."""
    return bool(re.search(r"^Tensor Shape +Tensor Size ", text, re.MULTILINE))


def is_json(data: Any) -> bool:
    """True for the object that it writes."""
    return isinstance(data, dict) and "world_size" in data and isinstance(data.get("results"), dict)


def runs_of_text(text: str, file: str, declared: Declared) -> list[Run]:
    """The runs of a file: one for each table."""
    if _MILLISECONDS not in text and not declared.excerpt:
        raise InputError(f"no line '{_MILLISECONDS}', which closes a table: give all of it, or --excerpt", file=file)
    runs: list[Run] = []
    header: tuple[int, str, int] | None = None
    columns: list[str] = []
    rows: list[tuple[int, str]] = []
    for number, line in lines_of(text):
        if found := _HEADER.search(line):
            runs += _table(header, columns, rows, file, declared)
            header, columns, rows = (int(found[1]), found[2], int(found[3])), [], []
        elif line.startswith("Tensor Shape"):
            runs += _table(header if columns else None, columns, rows, file, declared)
            header = None if columns else header
            columns, rows = re.split(r"\s{2,}", line.split("Best (Speedup")[0].strip())[2:], []
        elif columns and line.startswith("("):
            rows.append((number, line))
    runs += _table(header, columns, rows, file, declared)
    if not runs:
        raise InputError("no row of sizes and times", file=file)
    return runs


def _table(
    header: tuple[int, str, int] | None,
    columns: list[str],
    rows: list[tuple[int, str]],
    file: str,
    declared: Declared,
) -> list[Run]:
    if not rows:
        return []
    run = Run("vLLM benchmark_device_communicators.py", launch="in a CUDA graph")
    run.group = header[0] if header else None
    run.settle_group(declared, file)
    dtype = _dtype(header[1] if header else None, file, declared)
    check_declared_impls(declared, columns, file)
    for number, line in rows:
        found = _ROW.match(line)
        cells = found[5].split() if found else []
        if found is None or len(cells) < len(columns):
            raise refuse(file, number, "a shape, a size and a time in each column are expected", value=line)
        size = int(found[1]) * int(found[2]) * BYTES[dtype]
        if found[4] != "MB" or abs(size / _MIB - float(found[3])) > 0.0051:
            text = f"{found[1]} rows of {found[2]} in {dtype} are {size / _MIB:.2f} MB"
            raise refuse(file, number, text, "Tensor Size", f"{found[3]} {found[4]}")
        if header and int(found[2]) != header[2]:
            raise refuse(file, number, f"rows of {header[2]} are expected", "Tensor Shape", int(found[2]))
        times = dict(zip(columns, cells, strict=False))
        _check_best(times, line, number, file)
        _add(run, times, size, dtype, number, file, declared)
    return [run]


def _check_best(times: dict[str, str], line: str, number: int, file: str) -> None:
    """Refuse a row whose best column is not the one it names: columns moved, or the row is of another table."""
    best = _BEST.search(line)
    if best is None or best[1] not in times:
        raise refuse(file, number, "the best of the columns closes a row: it is cut off", "Best", line[-40:])
    known = {name: time_of(cell, file, number, name) for name, cell in times.items() if cell != "N/A"}
    if known.get(best[1], 1e9) > min(known.values()) + _ROUNDED_MS:
        raise refuse(file, number, f"another column is faster than {best[1]}, which the row calls best", "Best")


def runs_of_json(data: dict[str, Any], file: str, declared: Declared) -> list[Run]:
    """The run of a JSON file."""
    run = Run("vLLM benchmark_device_communicators.py", launch="in a CUDA graph")
    run.group = _whole(data, "world_size", file)
    run.settle_group(declared, file)
    width, dtype = _whole(data, "hidden_size", file), _dtype(str(data.get("dtype")), file, declared)
    wanted = data.get("sequence_lengths")
    lengths = {str(each) for each in wanted} if isinstance(wanted, list) else set(data["results"])
    if lacks := sorted(lengths - set(data["results"])):
        raise InputError("sizes that were to be measured are missing", file=file, field="results", value=lacks[0])
    columns: dict[str, None] = {}
    for index, (length, entry) in enumerate(data["results"].items()):
        timings = entry.get("timings") if isinstance(entry, dict) else None
        if not isinstance(timings, dict) or not is_whole(str(length)) or not int(length):
            raise InputError("rows with their timings are expected", file=file, field=f"results.{length}")
        columns |= dict.fromkeys(timings)
        for name, value in timings.items():
            if not is_number(value):
                raise InputError("a number is expected", file=file, field=f"results.{length}.{name}", value=value)
        times = {name: repr(value) for name, value in timings.items()}
        _add(run, times, int(length) * width * BYTES[dtype], dtype, index + 1, file, declared)
    check_declared_impls(declared, list(columns), file)
    return [run]


def _add(run: Run, times: dict[str, str], size: int, dtype: str, number: int, file: str, declared: Declared) -> None:
    for column, cell in times.items():
        if cell == "N/A":
            run.left_out["not measured (N/A)"] += 1
            continue
        impl = declared.impls.get(column) or IMPLS.get(column)
        if impl is None:
            run.left_out[f"of column {column}, which has no impl (--impl {column}=IMPL)"] += 1
            continue
        us = time_of(cell, file, number, column) * 1000
        run.points.append(Point(ALL_REDUCE.name, impl, dtype, size, us, number))


def _dtype(given: str | None, file: str, declared: Declared) -> str:
    if given is not None and given not in TYPES:
        raise InputError(f"no table is made of this type; accepted: {', '.join(TYPES)}", file=file, value=given)
    return settle("--dtype", TYPES.get(given or ""), declared.dtype, file, "the output does not name its type")


def _whole(data: dict[str, Any], name: str, file: str) -> int:
    value = data.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError("a whole number from 1 is expected", file=file, field=name, value=value)
    return value
