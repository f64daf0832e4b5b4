"""What Ascend's hccl_test prints: four columns between bars; op, ranks and type stand in its command line alone.

`data_size` is the size given by -b and -e: the whole buffer, which all-gather, reduce-scatter and all-to-all split
over the ranks, rounded up to whole elements of each. The bandwidth beside it is that of the whole buffer, of 1e9 or, in
other versions, of 2^30 bytes a second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ..strategy.errors import InputError
from ..strategy.op_kinds import ALL_REDUCE
from .outputs import (
    BYTES,
    Declared,
    Point,
    Run,
    check_declared_impls,
    check_rate,
    is_whole,
    known_op,
    lines_of,
    number_of,
    refuse,
    settle,
    time_of,
)

_TYPES = {"fp32": "fp32", "fp16": "fp16", "bfp16": "bf16", "bf16": "bf16", "int8": "int8", "uint8": "int8"}
_COLUMNS = {
    "data_size(Bytes)": "size",
    "aveg_time(us)": "time",  # as the program prints it
    "avg_time(us)": "time",  # as its documentation does
    "alg_bandwidth(GB/s)": "rate",
    "check_result": "result",
}
_SPAN = re.compile(r"minbytes is (\d{1,18}), maxbytes is (\d{1,18})")
_RESULTS = ("success", "failed", "NULL")


@dataclass
class _Output:
    line: int = 1
    command: str = ""
    span: tuple[int, int] | None = None
    columns: list[str] = field(default_factory=list)
    rows: list[tuple[int, dict[str, str]]] = field(default_factory=list)


def is_text(text: str) -> bool:
    """True for a table of this tool."""
    return "data_size" in text and "alg_bandwidth" in text


def runs_of_text(text: str, file: str, declared: Declared) -> list[Run]:
    """The runs of a file; InputError for the first thing that is wrong with one."""
    found = [_Output()]
    for number, line in lines_of(text):
        if re.search(r"\w+_test\s+-", line) or (_SPAN.search(line) and (found[-1].span or found[-1].rows)):
            if found[-1].rows or found[-1].span:
                found.append(_Output(number))
            if "_test" in line:
                found[-1].command = line
        if "check result failed" in line:
            raise refuse(file, number, "results were wrong, so the time is of something else", value=line.strip())
        _read_line(line, number, found[-1], file)
    empty = next((output for output in found if output.columns and not output.rows), None)
    if empty is not None or not any(output.rows for output in found):
        raise refuse(file, empty.line if empty else 1, "no row of sizes and times")
    return [_run(output, file, declared) for output in found if output.rows]


def _read_line(line: str, number: int, output: _Output, file: str) -> None:
    if span := _SPAN.search(line):
        output.span = int(span[1]), int(span[2])
    cells = [cell.strip() for cell in line.split("|")]
    if len(cells) < 2:
        return
    if cells[0].startswith("data_size") or "data_size" in line:
        names = [cell.rstrip(":").strip() for cell in cells]
        if wrong := [name for name in names if name not in _COLUMNS]:
            text = f"columns {', '.join(_COLUMNS)} are expected, in these units"
            raise refuse(file, number, text, value=wrong[0])
        output.columns = [_COLUMNS[name] for name in names]
    elif is_whole(cells[0]) or cells[-1] in _RESULTS:
        if len(cells) != len(output.columns):
            text = f"{len(output.columns)} columns are expected, and {len(cells)} are there"
            raise refuse(file, number, text, value=line.strip())
        output.rows.append((number, dict(zip(output.columns, cells, strict=True))))


def _run(output: _Output, file: str, declared: Declared) -> Run:
    run = Run("hccl_test", library=None)
    command = _command(output.command)
    run.group = int(command["n"]) if "n" in command else None
    if run.group is not None and "p" in command and run.group % int(command["p"]) == 0:
        run.nodes = run.group // int(command["p"])
    group = run.settle_group(declared, file)
    op = settle("--op", known_op(command.get("test", "")), declared.op, file, "no command line names the collective")
    given = command.get("d", "fp32" if output.command else None)
    if given is not None and given not in _TYPES:
        raise InputError(f"no table is made of this type; accepted: {', '.join(_TYPES)}", file=file, value=given)
    dtype = settle("--dtype", _TYPES.get(given or ""), declared.dtype, file, "no command line names the type")
    if command.get("o", "sum") != "sum":
        raise InputError("only sums are planned", file=file, field="-o", value=command["o"])
    _check_whole(output, file, declared)
    check_declared_impls(declared, ["hccl"], file)
    impl = declared.impls.get("hccl", "hccl")
    validated = []
    for line, row in output.rows:
        run.points.append(_point(line, row, op, impl, dtype, group, file))
        validated.append(row["result"] == "success")
    run.validated = all(validated)
    return run


def _command(line: str) -> dict[str, str]:
    """The program as `test`, its options by their letters, and mpirun's number of ranks as `n`."""
    found = re.search(r"(\S*\w+_test)\b(.*)$", line)
    if found is None:
        return {}
    options = dict(re.findall(r"\s-([a-z])\s+(\S+)", found[2]))
    options.pop("n", None)  # of the test: its rounds
    ranks = re.search(r"\s-(?:n|np)\s+(\d{1,6})\s", line[: found.start()])
    if not re.fullmatch(r"[1-9]\d{0,5}", options.get("p", "")):
        options.pop("p", None)
    return {"test": found[1], **options, **({"n": ranks[1]} if ranks else {})}


def _check_whole(output: _Output, file: str, declared: Declared) -> None:
    """Refuse an output that stops before the size that it was to end with."""
    if output.span is None or declared.excerpt:
        return
    ends = [row["size"] for _, row in (output.rows[0], output.rows[-1])]
    first, last = (int(size) if is_whole(size) else 0 for size in ends)
    if first > output.span[0] or 2 * last <= output.span[1]:
        text = f"its rows go from {first} to {last} bytes, the run from {output.span[0]} to {output.span[1]}"
        raise refuse(file, output.line, f"{text}: it is cut off. Give all of it, or --excerpt", "data_size")


def _point(line: int, row: dict[str, str], op: str, impl: str, dtype: str, group: int, file: str) -> Point:
    if row["result"] not in ("success", "NULL"):
        text = "results were wrong, so the time is of something else"
        raise refuse(file, line, text, "check_result", row["result"])
    if not is_whole(row["size"]) or not int(row["size"]):
        raise refuse(file, line, "a size above 0 is expected", "data_size", row["size"])
    size, rate = int(row["size"]), number_of(row["rate"], file, line, "alg_bandwidth")
    us = time_of(row["time"], file, line, "aveg_time(us)")
    if op != ALL_REDUCE.name:  # each rank's part is whole elements
        size = -(-size // (BYTES[dtype] * group)) * BYTES[dtype] * group
    binary = size / us * 1e6 / 2**30
    giga = 2**30 if abs(rate - binary) < abs(rate - size / us * 1e6 / 1e9) else 1e9
    check_rate(file, line, size, us, rate, group, giga, least=2e-5)
    return Point(op, impl, dtype, size, us, line)
