"""What ran: calls, rows and wire bytes per (mode, layer, boundary, op, impl), to be compared with the file."""

from __future__ import annotations

from dataclasses import dataclass

from commplan.planner.strategy.file import LayerShape, Op, State, StrategyFile, group_of, walk


@dataclass(frozen=True, slots=True)
class Place:
    """Where an op stands: layer (None outside the layers), boundary, op, states around it."""

    layer: int | None
    boundary: str
    op: Op
    before: State | None
    after: State
    shape: LayerShape

    def __str__(self) -> str:
        where = self.boundary if self.layer is None else f"layer {self.layer} {self.boundary}"
        return f"{where} ({self.op})"


@dataclass(slots=True)
class Count:
    """Calls of one op at one place, and the rows that entered it on this rank."""

    mode: str
    place: Place
    impl: str
    bytes_per_row: float
    calls: int = 0
    rows: int = 0

    @property
    def key(self) -> tuple[str, int | None, str, str, str]:
        """(mode, layer, boundary, op, impl)."""
        return self.mode, self.place.layer, self.place.boundary, str(self.place.op), self.impl

    @property
    def wire_bytes(self) -> float:
        """Bytes that a bandwidth-optimal algorithm brings to this rank for these rows."""
        return self.rows * self.bytes_per_row


class Counters:
    """All counts of an executor. One Count per mode and place: ranges that plan the same op there share it."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int | None, str, str, str], Count] = {}

    def of(self, mode: str, place: Place, impl: str, bytes_per_row: float) -> Count:
        """The count of a place, made on first use."""
        count = Count(mode, place, impl, bytes_per_row)
        return self._counts.setdefault(count.key, count)

    def executed(self) -> list[Count]:
        """Every op that ran (`none` and `fused` are not ops), in the order of the file."""
        return [c for c in self._counts.values() if c.calls and c.place.op.kind.runs]

    def calls(self) -> dict[tuple[str, int | None, str, str, str], int]:
        """Calls by key, of everything that ran."""
        return {count.key: count.calls for count in self.executed()}

    def reset(self) -> None:
        """Set every count to zero."""
        for count in self._counts.values():
            count.calls = count.rows = 0


def expected_calls(
    strategy: StrategyFile, forwards: list[tuple[str, int]]
) -> dict[tuple[str, int | None, str, str, str], int]:
    """What the counters must say after forwards of (mode, tokens): read off the file alone."""
    expected: dict[tuple[str, int | None, str, str, str], int] = {}
    for mode, tokens in forwards:
        for layer, boundary, op, _, _ in walk(strategy, strategy.range_of(mode, tokens)):
            if not op.kind.runs:
                continue
            key = (mode, layer, boundary, str(op), impl_of(op, strategy))
            expected[key] = expected.get(key, 0) + 1
    return expected


def impl_of(op: Op, strategy: StrategyFile) -> str:
    """Who performs an op: as it says, else the backend of the file; a slice is nobody's."""
    return (op.impl or strategy.hardware.backend) if op.kind.is_collective else "local"


def wire_bytes_per_row(place: Place, strategy: StrategyFile, width: int, element_bytes: int) -> float:
    """Bytes received per row that enters the op, by a bandwidth-optimal algorithm."""
    op, p = place.op, strategy.parallelism
    if not op.kind.is_collective:
        return 0.0
    ranks = p.group_size(group_of(place.boundary, op, place.before, place.shape, p))
    return op.kind.received_per_row(op.algorithm, ranks, p.attn_tp, width, element_bytes, op.wire)
