"""Tables of the installed package `aiconfigurator-core` (NVIDIA AIConfigurator) as a calibration.

The package keeps one Parquet file of NCCL collectives per system and NCCL version; message sizes are elements of the
whole buffer, latencies milliseconds. Taken is the newest version that has all four ops; for all-reduce SGLang's custom
kernel in a CUDA graph too, where the package has it (impl `custom_one_shot`). Repeats of a point give its median.
Rows of other ops and types are counted and left out; a number that cannot be is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..descriptions.base import build
from ..descriptions.calibration import CALIBRATION_SCHEMA, COLLECTIVES, Calibration
from ..strategy.errors import InputError, did_you_mean
from ..strategy.files import note_read
from ..strategy.op_kinds import ALL_REDUCE, ALL_TO_ALL
from ..strategy.packages import is_installed, missing
from .points import Key, median_table, moved

PACKAGE, MODULE = "aiconfigurator-core", "aiconfigurator_core"
_SPELLED = {ALL_TO_ALL.name: "alltoall"}  # as the package spells a collective, where it is not as we do
_OPS = {_SPELLED.get(name, name): name for name in COLLECTIVES}
_DTYPES = {
    "half": ("bf16", 2),
    "bfloat16": ("bf16", 2),
    "int8": ("int8", 1),
    "float": ("fp32", 4),
    "float32": ("fp32", 4),
}
_MOST_ROWS = 1_000_000
_OVER_PCIE = ("l40s", "rtx_pro_6000_server")
"""Systems without NVLink. There SGLang's kernel joins two ranks alone: what the package lists as that kernel over more
has NCCL's times, since NCCL is what SGLang fell back to."""

_Points = dict[Key, dict[int, list[float]]]


@dataclass(frozen=True)
class Imported:
    """A calibration, and what was done to its source on the way."""

    calibration: Calibration
    left_out: int  # rows of other ops and types
    reordered: int  # points that smoothing will move
    points: int


def import_system(system: str) -> Imported:
    """The tables of one system; InputError where package, system, files or figures are not as they should be."""
    root = _systems_folder()
    nccl, tables, left_out = _newest_nccl(root, system)
    library, sglang = f"nccl/{nccl.name}", _newest(root / system / "comm" / "sglang", "custom_allreduce_perf.parquet")
    if sglang is not None:
        file = sglang / "custom_allreduce_perf.parquet"
        left_out += _read_custom(file, tables, most_ranks=2 if system in _OVER_PCIE else None)
        library += f", sglang/{sglang.name}"
    if not any(impl == "custom_one_shot" for _, impl, _, _ in tables):
        library = f"nccl/{nccl.name}"
    data = {
        "schema": CALIBRATION_SCHEMA,
        "name": system.replace("_", "-"),
        "machine": f"{system} as {PACKAGE} names it",
        "library": library,
        "provenance": "table",
        "source": f"NVIDIA AIConfigurator {_package_version()}, package {PACKAGE} (Apache-2.0)",
        "notes": "message_bytes is the whole buffer, converted from elements. Type half stands for any 2-byte type.",
        "tables": tuple(
            median_table(key, points) for key, points in sorted(tables.items(), key=lambda item: _order(item[0]))
        ),
    }
    calibration = build(Calibration, data, str(nccl))
    reordered = sum(moved(table.message_bytes, table.latency_us) for table in calibration.tables)
    return Imported(calibration, left_out, reordered, sum(len(table.message_bytes) for table in calibration.tables))


# ---- where the files are ---------------------------------------------------------------------------------------------


def _systems_folder() -> Path:
    for module, package in ((MODULE, PACKAGE), ("pyarrow", "pyarrow")):
        if not is_installed(module):
            raise missing(package, "import", "--import")
    found = find_spec(MODULE)
    assert found is not None
    for place in found.submodule_search_locations or ():
        folder = Path(place) / "systems" / "data"
        if folder.is_dir():
            return folder
    raise InputError(f"the installed {PACKAGE} has no folder systems/data", file=PACKAGE, field="--import")


def _package_version() -> str:
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "of an unknown version"


def _newest_nccl(root: Path, system: str) -> tuple[Path, _Points, int]:
    systems = sorted(entry.name for entry in root.iterdir() if (entry / "comm" / "nccl").is_dir())
    if system not in systems:
        hint = did_you_mean(system, systems)
        raise InputError(f"{PACKAGE} has no collectives of it; {hint}", field="--import", value=system)
    folder = root / system / "comm" / "nccl"
    looked_at = []
    for candidate in _by_version(folder):
        file = candidate / "nccl_perf.parquet"
        if not file.is_file():
            continue
        tables, left_out = _read_nccl(file)
        missing = [op for op in COLLECTIVES if op not in {key[0] for key in tables}]
        if not missing:
            return candidate, tables, left_out
        looked_at.append(f"{candidate.name} lacks {', '.join(missing)}")
    why = "; ".join(looked_at) or "no nccl_perf.parquet"
    raise InputError(f"no version has all four ops ({why})", file=str(folder), field="op_name")


def _newest(folder: Path, name: str) -> Path | None:
    return next((v for v in _by_version(folder) if (v / name).is_file()), None) if folder.is_dir() else None


def _by_version(folder: Path) -> list[Path]:
    """Folders, the highest version first; 2.27 before 2.9, a release before its candidates."""

    def key(path: Path) -> tuple[tuple[int, ...], bool]:
        release = re.split(r"(?:rc|a|b|dev)\d*", path.name, maxsplit=1)[0]
        return tuple(int(n) for n in re.findall(r"\d+", release)), not re.search(r"rc|dev", path.name)

    return sorted((entry for entry in folder.iterdir() if entry.is_dir()), key=key, reverse=True)


# ---- what they hold --------------------------------------------------------------------------------------------------


def _read_nccl(file: Path) -> tuple[_Points, int]:
    tables: _Points = {}
    left_out = 0
    for number, row in enumerate(_rows(file, ("op_name", "nccl_dtype", "num_gpus", "message_size", "latency"))):
        op, dtype = _OPS.get(row["op_name"]), _DTYPES.get(row["nccl_dtype"])
        if op is None or dtype is None:
            left_out += 1
            continue
        _add(tables, (op, "nccl", dtype[0]), row, dtype[1], file, number)
    return tables, left_out


def _read_custom(file: Path, tables: _Points, most_ranks: int | None) -> int:
    left_out = 0
    columns = ("op_name", "kernel_source", "allreduce_dtype", "num_gpus", "message_size", "latency")
    for number, row in enumerate(_rows(file, columns)):
        dtype = _DTYPES.get(row["allreduce_dtype"])
        ranks = row["num_gpus"]  # of one that is no number _add tells
        is_its_own = most_ranks is None or not isinstance(ranks, int) or ranks <= most_ranks
        in_graph = str(row["kernel_source"]).endswith("_graph")
        if row["op_name"] != ALL_REDUCE.name or dtype is None or not in_graph or not is_its_own:
            left_out += 1
            continue
        _add(tables, (ALL_REDUCE.name, "custom_one_shot", dtype[0]), row, dtype[1], file, number)
    return left_out


def _rows(file: Path, columns: Iterable[str]) -> list[dict[str, Any]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        note_read(file)
        parquet = ParquetFile(file)
        there = parquet.schema_arrow.names
        for column in columns:
            if column not in there:
                raise InputError(f"no such column; the file has {', '.join(there)}", file=str(file), field=column)
        if parquet.metadata.num_rows > _MOST_ROWS:
            raise InputError(f"more than {_MOST_ROWS} rows", file=str(file), value=parquet.metadata.num_rows)
        found: list[dict[str, Any]] = parquet.read(columns=list(columns)).to_pylist()
    except (ArrowException, OSError) as error:
        raise InputError(f"not a Parquet file that can be read: {error}", file=str(file), kind="syntax") from None
    return found


def _add(
    tables: _Points, key: tuple[str, str, str], row: dict[str, Any], bytes_per_element: int, file: Path, number: int
) -> None:
    group, size, latency = row["num_gpus"], row["message_size"], row["latency"]
    for field, value, least in (("num_gpus", group, 2), ("message_size", size, 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise _refused(file, number, field, value, f"a whole number from {least} is expected")
    if isinstance(latency, bool) or not isinstance(latency, int | float) or not math.isfinite(latency) or latency <= 0:
        raise _refused(file, number, "latency", latency, "a time above 0 is expected")
    by_size = tables.setdefault((*key, group), {})
    by_size.setdefault(size * bytes_per_element, []).append(latency * 1000)


def _refused(file: Path, number: int, field: str, value: object, message: str) -> InputError:
    shown = value if value is not None else "nothing"
    return InputError(f"{message} (row {number + 1})", file=str(file), field=field, value=shown)


def _order(key: Key) -> tuple[bool, int, str, int]:
    op, impl, dtype, group_size = key
    return impl != "nccl", COLLECTIVES.index(op), dtype, group_size
