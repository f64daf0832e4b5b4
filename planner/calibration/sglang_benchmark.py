"""SGLang's benchmark/kernels/all_reduce and all_gather scripts: one table each, without the number of ranks.

  benchmark_mscclpp.py, benchmark_torch_symm_mem.py   | msg_size | torch eager time | ... graph time |, in us
  benchmark_all_reduce.py                             Size  CustomAR(ms)  TorchSymmMem(ms), with the ranks, fp16

Sizes are of the whole buffer, in powers of 1024. Times without a graph hold launches and, in the second, waiting for
the host: their impls end in `_eager`, and no plan has them, unless the user says otherwise with --impl.
"""

from __future__ import annotations

import re

from ..strategy.errors import InputError
from ..strategy.op_kinds import ALL_REDUCE
from .outputs import BYTES, Declared, Point, Run, check_declared_impls, lines_of, refuse, settle, time_of

_IMPLS = {
    "torch eager": "nccl_eager",
    "pynccl eager": "nccl_eager",
    "pynccl graph": "nccl",
    "msccl eager": "mscclpp_eager",
    "msccl graph": "mscclpp",
    "symm mem eager": "torch_symm_mem_eager",
    "symm mem graph": "torch_symm_mem",
    "CustomAR": "custom_one_shot_eager",
    "TorchSymmMem": "torch_symm_mem_eager",
}
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "K": 2**10, "M": 2**20, "G": 2**30}
_SIZE = re.compile(r"^(\d{1,9}(?:\.\d+)?) ?(B|[KMG]i?B?)$")
_CHECKED = re.compile(r"^sz=(\d{1,15}), dtype=torch\.(\w+): correctness check PASS")
_TORCH = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_RANKS = re.compile(r"^Results \(avg ms across (\d{1,6}) ranks", re.MULTILINE)


def is_text(text: str) -> bool:
    """True for a table of these scripts."""
    return bool(re.search(r"msg_size.*(?:eager|graph)", text) or _RANKS.search(text))


def runs_of_text(text: str, file: str, declared: Declared) -> list[Run]:
    """The runs of a file: one for each table."""
    runs: list[Run] = []
    checked: list[tuple[int, str]] = []
    ranks: int | None = None
    table: tuple[list[str], bool, list[tuple[int, list[str]]]] | None = None
    for number, line in lines_of(text):
        cells = (
            [cell.strip().strip("*") for cell in line.strip().strip("|").split("|")] if "|" in line else line.split()
        )
        if found := _CHECKED.match(line):
            checked.append((int(found[1]), found[2]))
        elif found := _RANKS.match(line):
            ranks = int(found[1])
        elif cells and cells[0] in ("msg_size", "Size") and len(cells) > 1:
            if table is not None:
                runs.append(_run(*table, ranks=ranks, checked=[], file=file, declared=declared))
            table = (cells, cells[0] == "Size", [])
        elif table is not None and cells and _SIZE.match(cells[0]):
            table[2].append((number, cells))
    if table is None or not table[2]:
        raise InputError("no row of sizes and times", file=file)
    return [*runs, _run(*table, ranks=ranks, checked=checked, file=file, declared=declared)]


def _run(
    columns: list[str],
    in_ms: bool,
    rows: list[tuple[int, list[str]]],
    *,
    ranks: int | None,
    checked: list[tuple[int, str]],
    file: str,
    declared: Declared,
) -> Run:
    run = Run("SGLang benchmark/kernels")
    run.group = ranks
    run.settle_group(declared, file)
    names = [_column(name, in_ms, file) for name in columns[1:]]
    check_declared_impls(declared, names, file)
    types = {_TORCH.get(name, name) for _, name in checked}
    if len(types) > 1 or (types and not types <= BYTES.keys()):
        raise InputError("one type of bf16, fp16 and fp32 is expected", file=file, value=sorted(types))
    said = "fp16" if in_ms else (types.pop() if types else None)
    dtype = settle("--dtype", said, declared.dtype, file, "the table does not name its type")
    why = "the table does not say whether it is of all_reduce or all_gather"
    op = settle("--op", ALL_REDUCE.name if in_ms else None, declared.op, file, why)
    if checked and [size * BYTES[dtype] for size, _ in checked] != [_bytes(cells[0], file, n) for n, cells in rows]:
        raise InputError(
            "rows and lines of the correctness check differ: the table is cut off or of another run", file=file
        )
    run.validated = bool(checked) or None
    for number, cells in rows:
        if len(cells) != len(columns):
            text = f"{len(columns)} columns are expected, and {len(cells)} are there"
            raise refuse(file, number, text, value=" | ".join(cells))
        _add(run, dict(zip(names, cells[1:], strict=True)), number, cells[0], op, dtype, in_ms, file, declared)
    return run


def _add(
    run: Run,
    times: dict[str, str],
    number: int,
    size: str,
    op: str,
    dtype: str,
    in_ms: bool,
    file: str,
    declared: Declared,
) -> None:
    for name, cell in times.items():
        if cell == "None":
            run.left_out["not measured (None)"] += 1
            continue
        impl = declared.impls.get(name) or _IMPLS.get(name)
        if impl is None:
            run.left_out[f"of column {name}, which has no impl (--impl '{name}=IMPL')"] += 1
            continue
        us = time_of(cell, file, number, name) * (1000 if in_ms else 1)
        run.points.append(Point(op, impl, dtype, _bytes(size, file, number), us, number))


def _column(name: str, in_ms: bool, file: str) -> str:
    """A column without its unit; refuses another unit."""
    found = re.match(r"^(.*?)(?:\((\w+)\))?$", name)
    assert found is not None
    unit = found[2]
    if (in_ms and unit != "ms") or (not in_ms and unit not in (None, "us")):
        raise InputError(f"times in {'(ms)' if in_ms else 'us'} are expected", file=file, field=name)
    return found[1].strip().removesuffix(" time")


def _bytes(text: str, file: str, line: int) -> int:
    found = _SIZE.match(text)
    if found is None or found[2] not in _UNITS:
        units = "B, KiB, MiB and GiB, or K, M and G,"
        raise refuse(file, line, f"a size in {units} is expected", "msg_size", text)
    size = float(found[1]) * _UNITS[found[2]]
    if size < 1 or size != int(size):
        raise refuse(file, line, "a size of whole bytes is expected: it is rounded", "msg_size", text)
    return int(size)
