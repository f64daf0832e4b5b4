"""JSON of nccl-tests (`-J FILE`) and rccl-tests (`-Z json -x FILE`).

nccl-tests writes one object: `nccl_version`, `config` with its `devices`, `results`. Of a process with several devices
`devices` names the first alone, so ranks are entries times nthreads times ngpus. rccl-tests writes a list of records,
one for each size and way.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..strategy.errors import InputError
from .nccl_tests import TYPES, Output, Row, run_of, version_text
from .outputs import BYTES, Declared, Run, is_number

_RCCL = ("name", "ranks", "gpusPerRank", "size", "type", "redop", "inPlace", "time", "algBw", "busBw", "wrong")
_MOST_RANKS = 65536
_Way = tuple[str, str, str, str]


def is_nccl(data: Any) -> bool:
    """True for the object that nccl-tests writes."""
    return isinstance(data, dict) and isinstance(data.get("results"), list) and "config" in data


def is_rccl(data: Any) -> bool:
    """True for the list that rccl-tests writes."""
    return isinstance(data, list) and bool(data) and isinstance(data[0], dict) and "busBw" in data[0]


# ---- nccl-tests ------------------------------------------------------------------------------------------------------


def read_nccl(data: dict[str, Any], file: str, declared: Declared) -> list[Run]:
    """The run of a file of nccl-tests."""
    config = data["config"]
    if not isinstance(config, dict):
        raise InputError("a mapping is expected", file=file, field="config")
    output = Output(closes_itself=True)
    if isinstance(code := data.get("nccl_version"), int):
        output.library = f"nccl {version_text(code)}"
    arguments = data.get("args")
    output.program = str(arguments[0]) if isinstance(arguments, list) and arguments else None
    output.graph, output.validation = _whole(config, "graph", file), _whole(config, "validation", file)
    output.average = _inner(data, "average_bus_bandwidth", "bandwidth", file)
    count = _inner(data, "out_of_bounds", "count", file)
    output.out_of_bounds = None if count is None else f"{count:g} values"
    if output.average is None and not declared.excerpt:
        raise InputError("is missing: the run did not end", file=file, field="average_bus_bandwidth")
    per_process = (_whole(config, "nthreads", file) or 1) * (_whole(config, "ngpus", file) or 1)
    _devices(output, config.get("devices", data.get("devices")), per_process, file)
    output.rows = [_row(entry, f"results[{index}]", index, file) for index, entry in enumerate(data["results"])]
    if not output.rows:
        raise InputError("no sizes were measured", file=file, field="results")
    return [run_of(output, file, declared)]


def _devices(output: Output, devices: Any, per_process: int, file: str) -> None:
    """A line for every rank, as the text has them: a process of several devices names its first."""
    if devices is None:
        return
    if not isinstance(devices, list) or not all(isinstance(each, dict) for each in devices):
        raise InputError("a list of mappings is expected", file=file, field="config.devices")
    if len(devices) * per_process > _MOST_RANKS:
        raise InputError(f"more than {_MOST_RANKS} ranks", file=file, field="config.ngpus", value=per_process)
    for process, each in enumerate(devices):
        host, name = str(each.get("hostname", "")), str(each.get("device_info", "device"))
        for local in range(per_process):
            output.ranks.append((process * per_process + local, str(each.get("group", 0)), host, name))


def _row(entry: Any, field: str, index: int, file: str) -> Row:
    if not isinstance(entry, dict):
        raise InputError("a mapping is expected", file=file, field=field)
    size, count = _whole(entry, "size", file, field), _whole(entry, "count", file, field)
    if size is None or count is None:
        raise InputError("size and count are expected", file=file, field=field)
    ways = [_way(entry.get(name), f"{field}.{name}", file) for name in ("out_of_place", "in_place")]
    return Row(index + 1, size, count, str(entry.get("type")), str(entry.get("redop")), ways[0], ways[1])


def _way(value: Any, field: str, file: str) -> _Way | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InputError("a mapping is expected", file=file, field=field)
    if "cpu_time" in value:
        raise InputError("times of the host (-C) are not those of the devices", file=file, field=f"{field}.cpu_time")
    found = []
    for name in ("time", "alg_bw", "bus_bw"):
        if not is_number(number := value.get(name)):
            raise InputError("a number is expected", file=file, field=f"{field}.{name}", value=number)
        found.append(repr(number))
    wrong = value.get("nwrong")
    return found[0], found[1], found[2], "N/A" if wrong is None else str(wrong)


# ---- rccl-tests ------------------------------------------------------------------------------------------------------


def read_rccl(data: list[Any], file: str, declared: Declared) -> list[Run]:
    """The runs of a file of rccl-tests: one for each collective and number of ranks."""
    outputs: dict[tuple[str, int, int], Output] = {}
    rows: dict[tuple[Any, ...], Row] = {}
    seen: Counter[tuple[Any, ...]] = Counter()
    for index, entry in enumerate(data):
        field = f"[{index}]"
        if not isinstance(entry, dict) or any(name not in entry for name in _RCCL):
            raise InputError(f"a record with {', '.join(_RCCL)} is expected", file=file, field=field)
        ranks = (_whole(entry, "ranks", file, field) or 0) * (_whole(entry, "gpusPerRank", file, field) or 0)
        if ranks > _MOST_RANKS:
            raise InputError(f"more than {_MOST_RANKS} ranks", file=file, field=f"{field}.ranks", value=ranks)
        size, nodes = _whole(entry, "size", file, field) or 0, _whole(entry, "nodes", file, field) or 1
        run = (str(entry["name"]), ranks, nodes)
        output = outputs.setdefault(run, _rccl_output(*run))
        point = (run, str(entry.get("numCycle")), size, str(entry["type"]), str(entry["redop"]))
        is_in_place = entry["inPlace"] in (1, True)
        seen[(*point, is_in_place)] += 1
        if seen[(*point, is_in_place)] > 1:
            raise InputError("stands there twice: files of several runs", file=file, field=field, value=size)
        if point not in rows:
            count = size // BYTES.get(TYPES.get(str(entry["type"]), ""), 1)
            rows[point] = Row(index + 1, size, count, str(entry["type"]), str(entry["redop"]), None, None)
            output.rows.append(rows[point])
        way = _record_way(entry, field, file)
        if is_in_place:
            rows[point].in_place = way
        else:
            rows[point].out_of_place = way
    return [run_of(output, file, declared) for output in outputs.values()]


def _rccl_output(name: str, ranks: int, nodes: int) -> Output:
    output = Output(tool="rccl-tests", program=f"{name}_perf", closes_itself=True)
    output.ranks = [(rank, "0", f"node {rank * nodes // ranks}", "device") for rank in range(ranks)]
    return output


def _record_way(entry: dict[str, Any], field: str, file: str) -> _Way:
    found = []
    for name in ("time", "algBw", "busBw"):
        if not is_number(number := entry[name]):
            raise InputError("a number is expected", file=file, field=f"{field}.{name}", value=number)
        found.append(repr(number))
    return found[0], found[1], found[2], str(entry["wrong"])


# ---- values ----------------------------------------------------------------------------------------------------------


def _whole(data: dict[str, Any], name: str, file: str, field: str = "config") -> int | None:
    value = data.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError("a whole number is expected", file=file, field=f"{field}.{name}", value=value)
    return value


def _inner(data: dict[str, Any], outer: str, name: str, file: str) -> float | None:
    value = data.get(outer)
    if value is None:
        return None
    number = value.get(name) if isinstance(value, dict) else None
    if not is_number(number):
        raise InputError("a number is expected", file=file, field=f"{outer}.{name}", value=number)
    assert number is not None
    return float(number)
