"""What was measured side by side: rows of rival times, from the calibrations of this package.

Three kinds of rows: impls of one collective; with the residual add and norm that follow, where some impl has them
inside; and with quantised sums allowed, by one wire format or by any that was measured there. Where a norm is a kernel
apart it is in the time: that of the same calibration's table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from commplan.planner.cost.tables import Curve
from commplan.planner.descriptions.base import build
from commplan.planner.descriptions.calibration import Calibration, Table
from commplan.planner.descriptions.hardware import Hardware
from commplan.planner.descriptions.loader import find
from commplan.planner.executors import load_executor
from commplan.planner.strategy.op_kinds import KINDS
from commplan.planner.strategy.yaml_file import read_mapping

# Every source with rival impls: its calibration, the machine, the system whose tables are left out.
SOURCES = (
    ("a100-sxm", "a100-8", "A100"),
    ("h100-sxm", "h100-8", "H100"),
    ("h100-vllm", "h100-8", "H100"),
    ("h100-custom-2025", "h100-8", "H100"),
    ("symm-mem-recipes", "h100-8", "H100"),
    ("h200-sxm", "h200-8", "H200"),
    ("h200-mscclpp", "h200-8", "H200"),
    ("h200-2-rivals", "h200-2", "H200"),
    ("b200-sxm", "b200-8", "B200"),
    ("b200-vllm", "b200-8", "B200"),
    ("b300-sxm", "b300-8", "B300"),
    ("b300-vllm", "b300-8", "B300"),
    ("gb200", "gb200-nvl72", "GB200"),
    ("gb200-mscclpp", "gb200-nvl72", "GB200"),
    ("gb300", "gb300-nvl72", "GB300"),
    ("l40s", "l40s-8", "L40S"),
    ("rtx-pro-6000", "rtx-pro-6000-8", "RTX PRO 6000"),
    ("sm120-pcie", "rtx-pro-6000-8", "RTX PRO 6000"),
    ("rtx-pro-6000-switches", "rtx-pro-6000-8", "RTX PRO 6000"),
    ("rtx-pro-6000-root-ports", "rtx-pro-6000-8", "RTX PRO 6000"),
    ("rtx-pro-6000-one-socket", "rtx-pro-6000-8", "RTX PRO 6000"),
    ("v100-pcie", "v100-pcie-4", "V100"),
    ("mi300x-aiter", "mi300x-8", "MI300X"),
    ("mi300x-quick-reduce", "mi300x-8", "MI300X"),
)
# Calibrations of one machine whose kernels work on rows; the first has its norms and its library.
ROW_SOURCES = ((("h100-2",), "h100-2", "H100"), (("h200-2", "h200-2-rivals"), "h200-2", "H200"))
_EAGER = "_eager"
_NORM = ("add_rms_norm",)


@dataclass(frozen=True)
class Rival:
    """Whose time stands in a row: an impl, of an op by one kernel as it is measured."""

    impl: str
    op: str
    algorithm: str | None = None
    wire: str | None = None
    scale_group: str | None = None

    @classmethod
    def of(cls, table: Table) -> Rival:
        """What a table measures."""
        return cls(table.impl.removesuffix(_EAGER), table.op, table.algorithm, table.wire, table.scale_group)

    @property
    def label(self) -> str:
        """As rules and lists name it."""
        return ".".join(part for part in (self.impl, self.wire or self._quantised, self.algorithm) if part)

    @property
    def _quantised(self) -> str | None:
        wire = KINDS[self.op].wire if self.op in KINDS else None
        return wire.name if wire is not None else None

    @property
    def is_exact(self) -> bool:
        """It loses nothing."""
        return self.op not in KINDS or not KINDS[self.op].is_quantized


@dataclass(frozen=True)
class Row:
    """Rival times of one collective. `width`: elements of a row, where a norm follows; `wire`: what is allowed beside
    exact sums, one format or `any`."""

    source: str
    machine: str
    system: str
    op: str
    dtype: str
    ranks: int
    message_bytes: int
    times: dict[str, float]
    width: int | None = None
    wire: str | None = None
    rivals: dict[str, Rival] = field(default_factory=dict)

    def regret(self, impl: str | None) -> float | None:
        """How much longer than the fastest an impl takes; None where there was no decision."""
        return None if impl is None else self.times[impl] / min(self.times.values()) - 1

    @property
    def what(self) -> str:
        """The collective and what belongs to it."""
        norm = f" and norm of {self.width}" if self.width else ""
        return f"{self.op}{norm}{f', {self.wire} allowed' if self.wire else ''} over {self.ranks}"


def rows() -> Iterator[Row]:
    """All rows of all sources."""
    for name, machine_name, system in SOURCES:
        yield from _plain(name, machine_name, system)
        yield from _by_wire(name, machine_name, system)
    for names, machine_name, system in ROW_SOURCES:
        yield from _with_norm(names, machine_name, system)


def _plain(name: str, machine_name: str, system: str) -> Iterator[Row]:
    """Impls of one collective that lose nothing."""
    grouped: dict[tuple[str, str, int, int, bool], dict[Rival, float]] = {}
    for table in _exact(name):
        eager = table.impl.endswith(_EAGER)
        for size, latency in zip(table.message_bytes, table.latency_us, strict=True):
            key = (table.op, table.dtype, table.group_size, size, eager)
            grouped.setdefault(key, {}).setdefault(Rival.of(table), latency)
    for (op, dtype, ranks, size, _), times in grouped.items():
        if len(times) > 1:
            yield _row(times, name, machine_name, system, op, dtype, ranks, size)


def _exact(name: str) -> Iterator[Table]:
    for table in calibration(name).tables:
        if table.dtype != "int8" and table.algorithm is None and table.width is None:
            yield table


def _by_wire(name: str, machine_name: str, system: str) -> Iterator[Row]:
    """The same beside one quantised sum, of each format that was measured for any width."""
    for table in calibration(name).tables:
        if table.wire is None or table.width is not None:
            continue
        for size, latency in zip(table.message_bytes, table.latency_us, strict=True):
            times = {Rival.of(table): latency}
            for other in _exact(name):
                if other.op == "all_reduce" and other.group_size == table.group_size and size in other.message_bytes:
                    times[Rival.of(other)] = other.latency_us[other.message_bytes.index(size)]
            if len(times) > 1:
                where = (name, machine_name, system, "all_reduce", table.dtype, table.group_size, size)
                yield _row(times, *where, wire=table.wire)


def _with_norm(names: tuple[str, ...], machine_name: str, system: str) -> Iterator[Row]:
    """A sum and the norm that follows it, by all that lose nothing, and by all that there are."""
    first = calibration(names[0])
    tables = [t for name in names for t in calibration(name).tables if _is_sum(t)]
    norms = {k.width: Curve.of(k.message_bytes, k.latency_us) for k in first.kernels if k.kernels == _NORM}
    for width, norm in norms.items():
        own = next(t for t in tables if t.width == width and t.impl == "commplan_triton")
        for size in own.message_bytes:
            times = {}
            for table in tables:
                latency = _at(table, size) if table.width in (None, width) else None
                if latency is not None:
                    times[Rival.of(table)] = latency + (0.0 if _fuses(table.impl) else norm.at(size)[0])
            where = (names[0], machine_name, system, "all_reduce", own.dtype, own.group_size, size)
            yield _row({r: t for r, t in times.items() if r.is_exact}, *where, width=width)
            yield _row(times, *where, width=width, wire="any")


def _is_sum(table: Table) -> bool:
    """True for a table of a sum that all ranks hold, by one choice of algorithm where it is exact."""
    if table.dtype == "int8" or (table.op == "all_reduce" and table.algorithm is not None):
        return False
    return table.op == "all_reduce" or (table.op in KINDS and KINDS[table.op].is_quantized)


def _at(table: Table, size: int) -> float | None:
    """The time of a size: measured, of the library between its measured sizes."""
    if size in table.message_bytes:
        return table.latency_us[table.message_bytes.index(size)]
    inside = table.message_bytes[0] <= size <= table.message_bytes[-1]
    return Curve.of(table.message_bytes, table.latency_us).at(size)[0] if table.impl == "nccl" and inside else None


def _fuses(impl: str) -> bool:
    known = load_executor("plan_only").impls
    return impl in known and known[impl].fuses_norm


def _row(
    times: dict[Rival, float],
    source: str,
    machine_name: str,
    system: str,
    op: str,
    dtype: str,
    ranks: int,
    size: int,
    width: int | None = None,
    wire: str | None = None,
) -> Row:
    by_label = {rival.label: latency for rival, latency in times.items()}
    rivals = {rival.label: rival for rival in times}
    return Row(source, machine_name, system, op, dtype, ranks, size, by_label, width, wire, rivals)


@cache
def calibration(name: str) -> Calibration:
    """A calibration of this package."""
    path = find(name, "calibrations", None, "calibration")
    return build(Calibration, read_mapping(path), str(path))


@cache
def machine(name: str) -> Hardware:
    """A machine of this package."""
    path = find(name, "hardware", None, "hardware")
    return build(Hardware, read_mapping(path), str(path))
