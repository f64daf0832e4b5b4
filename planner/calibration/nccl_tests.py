"""What nccl-tests and rccl-tests print: a header with every rank, rows of sizes, and an average that closes them.

Sizes are those of the whole buffer, times us, bandwidths GB of 1e9 bytes a second (nccl-tests, doc/PERFORMANCE.md). The
average bus bandwidth is taken over all rows and both ways of a run, so it tells whether rows are missing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean

from ..strategy.errors import InputError
from ..strategy.op_kinds import ALL_REDUCE, REDUCE_SCATTER
from .outputs import (
    BYTES,
    Declared,
    Point,
    Run,
    check_declared_impls,
    check_factor,
    check_rate,
    is_whole,
    known_op,
    lines_of,
    number_of,
    refuse,
    settle,
    time_of,
)

TYPES = {"float": "fp32", "half": "fp16", "bfloat16": "bf16", "int8": "int8", "uint8": "int8"}
_OTHER_TYPES = re.compile(r"^(?:u?int\d+|double|f(?:p)?8\w*|float8\w*)$")
SUMS = (ALL_REDUCE.name, REDUCE_SCATTER.name)
_LIBRARIES = {"nccl-tests": "nccl", "rccl-tests": "rccl"}
_SETTINGS = re.compile(
    r"^#?\s*nThread (?P<threads>\d{1,6}) nGpus (?P<gpus>\d{1,6}) minBytes (?P<least>\d+) maxBytes (?P<most>\d+)"
)
_RANK = re.compile(
    r"^#?\s*Rank\s+(?P<rank>\d{1,6})\s+(?:Group\s+(?P<group>\d+)\s+)?Pid\s+\d+\s+on\s+(?P<host>\S+)"
    r"\s+device\s+\d+\s+\[[^\]]*\]\s+(?P<name>.+)$"
)
_FAILURES = re.compile(r"Test (?:NCCL|CUDA|HIP|RCCL)? ?failure", re.IGNORECASE)
_MEAN_SHARE, _MEAN_LEAST = 0.002, 0.01
_SUM, _NO_SUM = "sum", "none"  # as the tools spell what ranks do with their values


@dataclass
class Row:
    """One line of sizes: (time, algorithm and bus bandwidth, wrong elements) of both ways, as they are written."""

    line: int
    size: int
    count: int
    dtype: str
    redop: str | None
    out_of_place: tuple[str, str, str, str] | None
    in_place: tuple[str, str, str, str] | None


@dataclass
class Output:
    """One run as it stands in a file, before anything is checked."""

    tool: str = "nccl-tests"
    version: str | None = None
    library: str | None = None
    program: str | None = None
    graph: int | None = None
    validation: int | None = None
    per_process: int | None = None
    line: int = 1
    ranks: list[tuple[int, str, str, str]] = field(default_factory=list)  # rank, group, host, device
    rows: list[Row] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    average: float | None = None
    out_of_bounds: str | None = None
    closes_itself: bool = False  # a JSON file that was cut off is none


def is_text(text: str) -> bool:
    """True for a table of these tools."""
    return bool(re.search(r"\balgbw\b.*\bbusbw\b", text))


def runs_of_text(text: str, file: str, declared: Declared) -> list[Run]:
    """The runs of a file; InputError for the first thing that is wrong with one."""
    outputs = _outputs(text, file)
    if "rccl-tests: Version" in text:
        for output in outputs:
            output.tool = "rccl-tests"
    return [run_of(output, file, declared) for output in outputs]


def version_text(code: int) -> str:
    """`2.29.7` of NCCL's version number 22907; older ones had two digits less (2708)."""
    return (
        f"{code // 10000}.{code // 100 % 100}.{code % 100}" if code >= 10000 else f"{code // 1000}.{code // 100 % 10}"
    )


# ---- reading ---------------------------------------------------------------------------------------------------------


def _outputs(text: str, file: str) -> list[Output]:
    found = [Output()]
    for number, line in lines_of(text):
        if _begins(line, found[-1]):
            found.append(Output(line=number))
        if _FAILURES.search(line):
            raise refuse(file, number, "the run ended with an error", value=line.strip())
        _read_line(line, number, found[-1], file)
    with_rows = [output for output in found if output.rows]
    if not with_rows:
        raise InputError("no row of sizes and times", file=file)
    lost = next((output for output in found if output.columns and not output.rows), None)
    if lost is not None:
        raise refuse(file, lost.line, "a run begins here and has no rows")
    return with_rows


def _begins(line: str, now: Output) -> bool:
    """True where another run begins: its first lines come when rows or the same lines were there."""
    if line.startswith(("# nccl-tests version", "# Collective test starting")):
        return bool(now.rows) or (line.startswith("# Coll") and now.program is not None)
    return bool(_SETTINGS.match(line)) and (bool(now.rows) or now.per_process is not None)


def _read_line(line: str, number: int, output: Output, file: str) -> None:
    for pattern, take in _HEADERS:
        if found := pattern.search(line):
            take(output, found)
            return
    if rank := _RANK.match(line):
        output.ranks.append((int(rank["rank"]), rank["group"] or "0", rank["host"], rank["name"].strip()))
    elif "algbw" in line and "busbw" in line:
        output.columns = line.lstrip("# ").split()
        _check_columns(output.columns, file, number)
    elif re.search(r"\(B\)\s+\(elements\)", line) and not re.search(r"\(us\)\s+\(GB/s\)\s+\(GB/s\)", line):
        raise refuse(file, number, "times in (us) and bandwidths in (GB/s) are expected", value=line.lstrip("# "))
    elif row := _row(line, number, output, file):
        output.rows.append(row)


def _settings(output: Output, found: re.Match[str]) -> None:
    output.per_process = int(found["threads"]) * int(found["gpus"])
    for name in ("graph", "validation"):
        if (given := re.search(rf"\b{name}: (\d{{1,9}})", found.string)) is not None:
            setattr(output, name, int(given[1]))


def _takes(name: str, kind: Callable[[str], object] = str) -> Callable[[Output, re.Match[str]], None]:
    def take(output: Output, found: re.Match[str]) -> None:
        setattr(output, name, kind(found[1]))

    return take


def _versions(output: Output, found: re.Match[str]) -> None:
    output.version, output.library = found[1], f"nccl {version_text(int(found[2]))}"


_HEADERS: tuple[tuple[re.Pattern[str], Callable[[Output, re.Match[str]], None]], ...] = (
    (_SETTINGS, _settings),
    (re.compile(r"^# nccl-tests version (\S+) .*nccl-library=(\d{1,9})"), _versions),
    (re.compile(r"^# Collective test starting: (\S+)"), _takes("program")),
    (re.compile(r"^rccl-tests: Version (\S*\w\S*)"), _takes("version")),
    (re.compile(r"^RCCL version *: (\S+)"), _takes("library", lambda text: f"rccl {text}")),
    (re.compile(r"^#? ?Out of bounds values *: (\d+ \w+)"), _takes("out_of_bounds")),
    (re.compile(r"^#? ?Avg bus bandwidth *: (\d+(?:\.\d*)?(?:e[+-]?\d\d?)?)\s*\w*$"), _takes("average", float)),
)


def _check_columns(columns: list[str], file: str, line: int) -> None:
    if "cputime" in columns:
        raise refuse(file, line, "times of the host (-C) are not those of the devices", "cputime")
    if columns[:3] != ["size", "count", "type"] or columns.count("time") != 2:
        raise refuse(file, line, "columns size, count, type and two of time, algbw, busbw are expected", value=columns)


def _row(line: str, number: int, output: Output, file: str) -> Row | None:
    """A row; None for a line that is none. A line that begins as one and does not go on is refused."""
    parts = line.split()
    if len(parts) < 3 or not (is_whole(parts[0]) and is_whole(parts[1])):
        return None
    if parts[2] not in TYPES and not _OTHER_TYPES.match(parts[2]):
        return None
    if not output.columns:
        raise refuse(file, number, "a row stands before the line that names its columns", value=line.strip())
    columns = output.columns
    if len(parts) < len(columns) or (len(parts) > len(columns) and "timestamp" not in columns):
        text = (
            f"{len(columns)} columns are expected, and {len(parts)} are there: cut off, or lines of several processes"
        )
        raise refuse(file, number, text, value=line.strip())
    starts = [i for i, name in enumerate(columns) if name == "time"]
    ways = [(parts[i], parts[i + 1], parts[i + 2], parts[i + 3]) for i in starts]
    redop = parts[columns.index("redop")] if "redop" in columns else None
    return Row(number, int(parts[0]), int(parts[1]), parts[2], redop, ways[0], ways[1])


# ---- checking --------------------------------------------------------------------------------------------------------


def run_of(output: Output, file: str, declared: Declared) -> Run:
    """A run whose every row was checked."""
    run = Run(output.tool, output.version, output.library)
    run.launch = None if output.graph is None else ("in a CUDA graph" if output.graph else "one by one")
    run.buffers = "in place" if declared.in_place else "out of place"
    _ranks(output, run, file)
    group = run.settle_group(declared, file)
    found = known_op(output.program) if output.program else None
    if output.program and found is None:
        raise InputError("no table is made of this collective", file=file, field="op", value=output.program)
    op = settle("--op", found, declared.op, file, "the output does not name its collective")
    if not declared.excerpt:
        _check_whole(output, file)
    if output.out_of_bounds is not None and not output.out_of_bounds.startswith("0 "):
        raise InputError("values were out of bounds: the sums are wrong", file=file, value=output.out_of_bounds)
    library = _LIBRARIES[output.tool]
    check_declared_impls(declared, [library], file)
    impl = declared.impls.get(library, library)
    validated = []
    for row in output.rows:
        way = row.in_place if declared.in_place else row.out_of_place
        point = _point(row, way, op, impl, group, run.left_out, file)
        if point is not None and way is not None:
            validated.append(way[3] != "N/A")
            run.points.append(point)
    others = sorted({point.dtype for point in run.points} - {declared.dtype})
    if declared.dtype is not None and others:
        text = f"the output is of {', '.join(others)}"
        raise InputError(text, file=file, field="--dtype", value=declared.dtype)
    run.validated = all(validated) if output.validation != 0 else False
    return run


def _ranks(output: Output, run: Run, file: str) -> None:
    """Groups, hosts and devices by the lines of the ranks."""
    if not output.ranks:
        return
    numbers = [rank for rank, *_ in output.ranks]
    twice = [rank for rank, count in Counter(numbers).items() if count > 1]
    if twice:
        text = "stands there twice: several runs in one, or programs built without MPI that knew nothing of each other"
        raise refuse(file, output.line, f"rank {twice[0]} {text}", "Rank")
    if sorted(numbers) != list(range(len(numbers))) or len(numbers) % (output.per_process or 1):
        raise refuse(file, output.line, f"not every rank has a line, only {len(numbers)}", "Rank")
    groups: dict[str, list[str]] = {}
    for _, group, host, _ in output.ranks:
        groups.setdefault(group, []).append(host)
    sizes = {(len(hosts), len(set(hosts))) for hosts in groups.values()}
    if len(sizes) > 1:
        raise refuse(file, output.line, f"groups differ: {sorted(sizes)} ranks and hosts", "Group")
    run.group, run.nodes = sizes.pop()
    names = sorted({name for *_, name in output.ranks})
    run.devices = f"{len(numbers)} x {' and '.join(names)}"


def _check_whole(output: Output, file: str) -> None:
    """Refuse an output that is cut off or lacks rows."""
    if output.average is None and output.closes_itself:
        return
    if output.average is None:
        text = "the run that begins here has no line 'Avg bus bandwidth': it is cut off. Give all of it, or --excerpt"
        raise refuse(file, output.line, text, "Avg bus bandwidth")
    ways = [(way, row.line) for row in output.rows for way in (row.out_of_place, row.in_place) if way]
    rates = [number_of(way[2], file, line, "busbw") for way, line in ways if way[2] != "N/A"]
    if not rates:
        return
    mean = fmean(rates)
    if abs(mean - output.average) > max(_MEAN_LEAST, _MEAN_SHARE * output.average):
        text = f"its rows average {mean:.3f} GB/s: rows are missing or of another run. Give all of it, or --excerpt"
        raise refuse(file, output.line, text, "Avg bus bandwidth", output.average)


def _point(
    row: Row, way: tuple[str, str, str, str] | None, op: str, impl: str, group: int, left: Counter[str], file: str
) -> Point | None:
    dtype = TYPES.get(row.dtype)
    if dtype is None:
        left[f"of type {row.dtype}"] += 1
        return None
    if row.redop not in (None, _SUM if op in SUMS else _NO_SUM):
        if row.redop in (_SUM, _NO_SUM):
            raise refuse(file, row.line, f"{op} has another reduction", "redop", row.redop)
        left[f"of reduction {row.redop}"] += 1
        return None
    if row.size == 0:
        left["of no bytes"] += 1
        return None
    if way is None or way[0] == "N/A":
        raise refuse(
            file, row.line, "the test measured nothing this way (of out-of-place and --in-place)", "time", "N/A"
        )
    us = time_of(way[0], file, row.line, "time")
    _check_wrong(way[3], file, row.line)
    if row.count * BYTES[dtype] not in (row.size, row.size // group):
        text = f"{row.count} elements are neither the buffer of {row.size} bytes nor the part of one of {group} ranks"
        raise refuse(file, row.line, text, "count", row.count)
    algorithm = number_of(way[1], file, row.line, "algbw")
    bus = number_of(way[2], file, row.line, "busbw")
    check_rate(file, row.line, row.size, us, algorithm, group)
    check_factor(file, row.line, op, group, algorithm, bus)
    return Point(op, impl, dtype, row.size, us, row.line)


def _check_wrong(text: str, file: str, line: int) -> None:
    """Refuse wrong results. Old versions printed the largest error of a sum there, a float below 1e-2."""
    if text == "N/A":
        return
    try:
        wrong = float(text)
    except ValueError:
        wrong = 1.0
    if not 0 <= wrong < 0.01:
        raise refuse(file, line, "results were wrong, so the time is of something else", "#wrong", text)
