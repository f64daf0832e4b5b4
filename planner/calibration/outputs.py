"""What the output of a benchmark becomes on its way to a calibration: runs of points, checked row by row.

Every reader of a tool gives runs; nothing is guessed for them. What an output does not say (group, op, type) the user
declares, and what both say must agree. Each row is held to the bandwidth that stands beside it, which finds times in
another unit and sizes of one rank where the whole buffer is meant.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..strategy.errors import InputError, did_you_mean
from ..strategy.op_kinds import COLLECTIVES as RECORDS

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}
_PREFIX = re.compile(r"^(?:\[\d+(?:,\d+)?\](?:<std(?:out|err)>)?:?\s?|\d{1,5}: )")  # of mpirun --tag-output, srun -l
_RATE_SHARE, _RATE_LEAST = 0.005, 0.011  # what rounding of time and bandwidth may make of a row
_FACTOR_SHARE = 0.004


@dataclass(frozen=True)
class Declared:
    """What the user says of the outputs; None where they say nothing.

    in_place  take the times of one buffer for both ends
    excerpt   an output may be a part of what its tool printed
    impls     the impl of a column or library, by its name
    """

    op: str | None = None
    dtype: str | None = None
    group: int | None = None
    nodes: int | None = None
    in_place: bool = False
    excerpt: bool = False
    impls: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """One time: of the whole buffer, in us, with the line it stood in."""

    op: str
    impl: str
    dtype: str
    message_bytes: int
    us: float
    line: int


@dataclass
class Run:
    """One run of a tool. What it does not say is None."""

    tool: str
    version: str | None = None
    library: str | None = None
    devices: str | None = None
    group: int | None = None
    nodes: int | None = None
    launch: str | None = None
    buffers: str | None = None
    validated: bool | None = None
    points: list[Point] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def settle_group(self, declared: Declared, file: str) -> int:
        """The number of ranks: of the output, of the user, and of both the same; its nodes likewise."""
        self.group = _settled("--group", "ranks", self.group, declared.group, file)
        if self.group is None:
            raise missing(file, "--group", "the output does not say how many ranks took part")
        if self.group < 2:
            raise InputError("one rank exchanges nothing; two or more are expected", file=file, value=self.group)
        self.nodes = self._settled_nodes(declared, file)
        if self.group % self.nodes:
            raise InputError(f"{self.group} ranks are not spread evenly over them", file=file, value=self.nodes)
        return self.group

    def _settled_nodes(self, declared: Declared, file: str) -> int:
        """Nodes are joined by another link than devices within one. Hosts of a rack that one switch joins are one."""
        hosts = self.nodes or 1
        if hosts > 1 and declared.nodes is None:
            why = f"its ranks are on {hosts} hosts: {hosts} nodes, or 1 where one switch joins them all"
            raise missing(file, "--nodes", why)
        if declared.nodes is not None and self.nodes is not None and hosts % declared.nodes:
            raise InputError(f"the output has {hosts} hosts", file=file, field="--nodes", value=declared.nodes)
        return declared.nodes or hosts


def _settled(option: str, what: str, found: int | None, declared: int | None, file: str) -> int | None:
    if found is not None and declared is not None and found != declared:
        text = f"the output has {found} {what}; give the outputs of one group at a time, or leave {option} out"
        raise InputError(text, file=file, field=option, value=declared)
    return found if found is not None else declared


def missing(file: str, option: str, why: str) -> InputError:
    """The error for what an output does not say and the user did not declare."""
    return InputError(f"{why}; say it with {option}", file=file, field=option, kind="missing_key")


def settle(option: str, found: str | None, declared: str | None, file: str, why: str) -> str:
    """A word that the output says or the user declares; both say the same, one of them says it."""
    if found is not None and declared is not None and found != declared:
        raise InputError(f"the output is of {found}", file=file, field=option, value=declared)
    word = found or declared
    if word is None:
        raise missing(file, option, why)
    return word


def refuse(file: str, line: int, message: str, field: str | None = None, value: object = None) -> InputError:
    """The error for a line of an output."""
    return InputError(f"line {line}: {message}", file=file, field=field, value=value)


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, without what mpirun puts before them and terminals within."""
    for number, line in enumerate(text.splitlines(), 1):
        yield number, _PREFIX.sub("", re.sub(r"\x1b\[[0-9;]*m", "", line)).rstrip()


def time_of(text: str, file: str, line: int, column: str) -> float:
    """A time above zero."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value <= 0:
        raise refuse(file, line, "a time above 0 is expected", column, text)
    return value


def number_of(text: str, file: str, line: int, column: str) -> float:
    """A number from zero on."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise refuse(file, line, "a number is expected", column, text)
    return value


def is_whole(text: str) -> bool:
    """True for the digits of a number that a size or count can be."""
    return text.isascii() and text.isdigit() and len(text) < 19


def check_rate(
    file: str,
    line: int,
    size: int,
    us: float,
    gb_per_s: float,
    group: int,
    giga: float = 1e9,
    least: float = _RATE_LEAST,
) -> None:
    """Refuse a row whose size and time do not give the bandwidth beside them; `least` is what rounding may leave."""
    made = size / us * 1e6 / giga
    if abs(made - gb_per_s) <= max(least, _RATE_SHARE * max(made, gb_per_s)):
        return
    ratio = gb_per_s / made if made else math.inf
    text = f"{size} bytes in {us:g} us are {made:.2f} GB/s, and the row says {gb_per_s:g}"
    if math.isclose(ratio, group, rel_tol=0.02):
        text += f", {group} times as much: sizes of one rank stand where those of the whole buffer belong"
    elif math.isclose(ratio, 1e-3, rel_tol=0.02) or math.isclose(ratio, 1e3, rel_tol=0.02):
        text += ": times in another unit stand where us belong"
    raise refuse(file, line, text, "algbw", gb_per_s)


def check_factor(file: str, line: int, op: str, group: int, algorithm: float, bus: float) -> None:
    """Refuse a row whose bus bandwidth is that of another number of ranks; small ones are rounded too far to say."""
    if algorithm < 1:
        return
    expected = RECORDS[op].received(group)
    if abs(bus / algorithm - expected) > _FACTOR_SHARE * expected + 0.012 / algorithm:
        text = f"bus over algorithm bandwidth is {bus / algorithm:.3f}; {op} over {group} ranks has {expected:.3f}"
        raise refuse(file, line, f"{text}: another op, or another number of ranks", "busbw", bus)


def known_op(name: str) -> str | None:
    """A collective by the name of its test's program (`all_gather_perf`, `alltoall_test`); None for others."""
    found = re.search(r"(?:^|[/\s])(\w+?)_(?:perf|test)(?:_mpi)?$", name.strip())
    word = found[1] if found else name.strip()
    return _PROGRAMS.get(word.replace("_", "").lower())


_PROGRAMS = {
    "allreduce": "all_reduce",
    "allgather": "all_gather",
    "reducescatter": "reduce_scatter",
    "alltoall": "all_to_all",
}


def check_declared_impls(declared: Declared, columns: list[str], file: str) -> None:
    """Refuse an impl given for a column that the output has not."""
    for column in declared.impls:
        if column not in columns:
            raise InputError(
                f"the output has no such column; {did_you_mean(column, columns)}",
                file=file,
                field="--impl",
                value=column,
            )


def is_number(value: Any) -> bool:
    """A plain number of a JSON file."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
