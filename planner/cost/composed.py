"""Sums by kernels around what carries their messages: their stages, and what stays when rows go in pieces.

A device works on two streams: its kernels on one, the calls of the library on the other. Rows are cut into equal
pieces, and the stages are issued one after another for all pieces: every piece is quantised, every piece sent, and so
on. A stage of a piece starts when the stage before it has ended for that piece, and when its stream is free. So the
calls hide the kernels but for the first piece's and the last one's, or the kernels hide the calls.

Two streams are not assumed to slow each other down; a table of the machine knows better, and wins. Where the sum was
measured in other formats alone, the nearest of them stands in: of what it takes beyond its fewest rows, the stages say
how much another format takes.

What goes through the host's memory has its price from such a table alone, and never from another machine's. The stages
then only say what a link would change that is varied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..descriptions.setup import Setup
from ..executors import Executor
from ..strategy.op_kinds import KINDS
from ..strategy.op_record import Pass, Send, Step
from ..strategy.wire import Wire
from .collective_tables import Found, Measured
from .collectives import CollectiveCosts, scaled_to_link
from .estimate import Estimate, weakest
from .terms import Composed

CARRIER = "int8"
"""The type of the one message: bytes, whatever they mean."""
STAGED_PIECE = 4
"""What the host launches of a piece that goes through its memory, beside a copy from each peer: the copy there, and
tiny kernels that tell it, await the peers' and see that they came."""
STAGED_CALL = 2
"""And once a call: tiny kernels that await what was read before, and say what is read now."""


class Stage(NamedTuple):
    """A stage of one piece: on the stream of the library or on that of the kernels."""

    is_call: bool
    time_us: float


def pipelined_us(stages: Sequence[Stage], pieces: int) -> float:
    """From the first stage's start to the last one's end, of so many equal pieces on two streams."""
    free = {False: 0.0, True: 0.0}  # when each stream is
    ready = [0.0] * pieces  # when the stage before has ended, by piece
    for stage in stages:
        for piece in range(pieces):
            start = max(free[stage.is_call], ready[piece])
            free[stage.is_call] = ready[piece] = start + stage.time_us
    return ready[-1]


def stages_of(steps: Sequence[Step]) -> list[Step]:
    """The steps of an op where values and scales travel as one message: a send that follows its like goes with it."""
    found: list[Step] = []
    for step in steps:
        last = found[-1] if found else None
        if isinstance(step, Send) and isinstance(last, Send) and step.by is last.by:
            continue
        found.append(step)
    return found


def num_calls(work: Composed) -> int:
    """Calls of the library in a sum."""
    steps = stages_of(KINDS[work.op].way(work.algorithm).steps)
    return work.pieces * sum(isinstance(step, Send) for step in steps)


def num_staged(work: Composed, size: int) -> int:
    """Launches that carry the messages of a sum over so many ranks through the host's memory; of one in one launch that
    is all."""
    if KINDS[work.op].way(work.algorithm).in_one_launch:
        return 1
    return work.pieces * (STAGED_PIECE + size - 1) + STAGED_CALL


def num_launches(work: Composed, executor: Executor) -> int:
    """Kernels that the host launches in a sum."""
    steps = stages_of(KINDS[work.op].way(work.algorithm).steps)
    found = [executor.composed_kernels(step.step, work.backend) for step in steps if isinstance(step, Pass)]
    if executor.impls[work.impl].fuses_norm:
        found.append(executor.composed_kernels("norm", work.backend))
    return work.pieces * sum(kernel.launches for kernels in found for kernel in kernels)


class ComposedCosts:
    """Prices of composed sums in one setup."""

    def __init__(self, setup: Setup, collectives: CollectiveCosts) -> None:
        self._executor, self._parallelism, self._collectives = setup.executor, setup.parallelism, collectives
        self._impls = setup.impls
        self._recipes: dict[tuple[Composed, int], _Recipe] = {}
        self._known: dict[tuple[Composed, int, int, bool], _Priced] = {}
        memory = setup.hardware.memory
        self._rate = memory.bandwidth_gb_per_s.value * memory.bandwidth_efficiency.value * 1e3  # bytes per us
        self._launch_us = memory.kernel_overhead_us.value
        self._provenance = weakest({memory.bandwidth_gb_per_s.provenance, memory.bandwidth_efficiency.provenance})

    def calls(self, work: Composed, rows: int, width: int) -> Estimate:
        """The calls of the library for all pieces; all that the sum takes where a table of it stands."""
        priced = self._priced(work, rows, width)
        calls, pieces = priced.calls, priced.pieces
        wire_bytes = pieces * sum(call.wire_bytes for call in calls)
        found = priced.found
        if found is None and priced.like is not None:
            return self._by_other_format(work, rows, width, priced.like, wire_bytes)
        if found is None:
            time, launch = (pieces * sum(getattr(call, part) for call in calls) for part in ("time_us", "launch_us"))
            provenance = weakest({call.provenance for call in calls})
            return Estimate(time, launch, wire_bytes, provenance, calls[0].source)
        time, extrapolated = found.curve.at(rows * width * work.bytes_per_element)
        source = found.source + (", extrapolated" if extrapolated else "")
        known = Estimate(time, 0.0, wire_bytes, found.provenance, source)
        if self._collectives.on_own_link is None or found.is_given:
            return known
        own = self._priced(work, rows, width, on_own_link=True)
        return scaled_to_link(known, priced.total_us, own.total_us)

    def unhidden(self, work: Composed, rows: int, width: int) -> Estimate:
        """What of its kernels the calls do not hide; nothing where a table has all of the sum."""
        priced = self._priced(work, rows, width)
        if priced.found is not None or priced.like is not None:
            return Estimate(0.0, 0.0, 0.0, self._provenance, "inside the table of the sum")
        rest = max(0.0, priced.total_us - priced.calls_us)
        launch = min(priced.launch_us, rest)
        return Estimate(rest - launch, launch, 0.0, self._provenance, "passes over memory, beside the library's calls")

    def is_among_measured(self, work: Composed) -> bool:
        """False for a sum of which there are tables, but by other algorithms or in other numbers of pieces alone."""
        known = self._collectives.ways_of(self._wanted(work), self._borrows(work))
        return not known or (work.algorithm, work.pieces) in known

    def lacks_table(self, work: Composed, width: int) -> bool:
        """True for a sum that goes by its table alone, and there is none of it."""
        return self._impls[work.impl].needs_table and self._found(work, width) is None

    def most_bytes(self, work: Composed, width: int) -> float | None:
        """The largest message of activations that its impl takes so; None: any.

        A sum in one launch is for few rows, and nothing is known of more than were measured: a price beyond its table
        would be a line through what latency made.
        """
        most = self._impls[work.impl].most_bytes(work.algorithm)
        found = self._found(work, width)
        if found is None or not KINDS[work.op].way(work.algorithm).in_one_launch:
            return most
        return min(found.curve.sizes[-1], found.curve.sizes[-1] if most is None else most)

    def sizes(self, work: Composed, width: int) -> tuple[float, ...]:
        """Sizes of the message of activations at which the price has a kink."""
        recipe = self._recipe(work, width)
        if recipe.found is not None:
            return recipe.found.curve.sizes
        sizes = self._stage_sizes(work, width)
        if recipe.like is not None:
            sizes |= {*self.sizes(recipe.like, width), *self._stage_sizes(recipe.like, width)}
        return tuple(sorted(sizes))

    def _stage_sizes(self, work: Composed, width: int) -> set[float]:
        """Those at which a call of the library has one."""
        sizes = set[float]()
        for step in stages_of(KINDS[work.op].way(work.algorithm).steps):
            if isinstance(step, Send):
                knots = self._collectives.table_sizes(step.by.name, work.backend, CARRIER, work.group)
                each = self._row_bytes(work, width) / width * (self._size(work) if step.whole else 1)
                sizes |= {knot / each * work.bytes_per_element * work.pieces for knot in knots}
        return sizes

    # ---- parts ------------------------------------------------------------------------------------------------------

    def _priced(self, work: Composed, rows: int, width: int, on_own_link: bool = False) -> _Priced:
        """All stages of all pieces, on this link or on the machine's own."""
        key = (work, rows, width, on_own_link)
        if key not in self._known:
            self._known[key] = self._new_price(work, rows, width, on_own_link)
        return self._known[key]

    def _new_price(self, work: Composed, rows: int, width: int, on_own_link: bool) -> _Priced:
        recipe = self._recipe(work, width)
        collectives = self._collectives.on_own_link if on_own_link else self._collectives
        assert collectives is not None
        pieces = max(1, min(work.pieces, rows // recipe.whole_rows))
        stages, calls = [], []
        for name, bytes_a_row, launch_us in recipe.stages:
            if name is None:
                stages.append(Stage(False, rows / pieces * bytes_a_row / self._rate + launch_us))
                continue
            call = collectives.collective(name, work.backend, CARRIER, work.group, rows / pieces * bytes_a_row)
            calls.append(call)
            stages.append(Stage(True, call.total_us))
        return _Priced(pipelined_us(stages, pieces), calls, pieces, recipe.launch_us, recipe.found, recipe.like)

    def _by_other_format(self, work: Composed, rows: int, width: int, like: Composed, wire_bytes: float) -> Estimate:
        """All that a sum takes, by the table of another format.

        What its fewest rows take is no matter of bytes, so it is the same in every format; of the rest the stages say
        the ratio.
        """
        found, wire = self._found(like, width), _format(like)
        assert found is not None and wire is not None
        fewest = math.ceil(found.curve.sizes[0] / (width * work.bytes_per_element))
        rows = max(rows, fewest)
        known, least = (self.calls(like, each, width) for each in (rows, fewest))
        ours, theirs = (self._priced(each, rows, width) for each in (work, like))
        grown = max(0.0, known.total_us - least.total_us) * ours.total_us / theirs.total_us
        rests_on = {call.provenance for each in (ours, theirs) for call in each.calls}
        source = f"{known.source}, in {wire.words}, and the formula's ratio of both"
        provenance = weakest({known.provenance, "formula", *rests_on})
        return Estimate(min(known.total_us, least.total_us) + grown, 0.0, wire_bytes, provenance, source)

    def _recipe(self, work: Composed, width: int) -> _Recipe:
        """The stages of a sum, by what a row costs in each."""
        key = (work, width)
        if key not in self._recipes:
            self._recipes[key] = self._new_recipe(work, width)
        return self._recipes[key]

    def _new_recipe(self, work: Composed, width: int) -> _Recipe:
        size = self._size(work)
        steps = stages_of(KINDS[work.op].way(work.algorithm).steps)
        message, stages = self._row_bytes(work, width), list[_StageOfRow]()
        for step in steps:
            if isinstance(step, Send):
                stages.append(_StageOfRow(step.by.name, message * (size if step.whole else 1), 0.0))
                continue
            kernels = self._executor.composed_kernels(step.step, work.backend)
            if step is steps[-1] and self._impls[work.impl].fuses_norm:
                kernels += self._executor.composed_kernels("norm", work.backend)
            # What is stated per element is of 2-byte activations, so a wider type scales it.
            moved = sum(kernel.bytes(width, size) for kernel in kernels) * work.bytes_per_element / 2
            moved += sum(kernel.wire_bytes(message, size) for kernel in kernels)
            launches = sum(kernel.launches for kernel in kernels)
            stages.append(_StageOfRow(None, moved, self._launch_us * launches))
        in_shards = any(isinstance(step, Send) and step.rows == "padded" for step in steps)
        launch_us = sum(stage.launch_us for stage in stages)
        found = self._found(work, width)
        like = self._like(work, width) if found is None else None
        return _Recipe(tuple(stages), size if in_shards else 1, launch_us, found, like)

    def _row_bytes(self, work: Composed, width: int) -> float:
        """A row as it travels."""
        wire = _format(work)
        return width * work.bytes_per_element if wire is None else wire.row_bytes(width)

    def _size(self, work: Composed) -> int:
        return self._parallelism.group_size(work.group)

    def _wanted(self, work: Composed) -> Measured:
        size = self._size(work)
        return Measured(
            work.op, work.impl, work.dtype, size, work.algorithm, None, work.wire, work.scale_group, work.pieces
        )

    def _found(self, work: Composed, width: int) -> Found | None:
        return self._collectives.found(self._wanted(work), width, self._borrows(work))

    def _like(self, work: Composed, width: int) -> Composed | None:
        """Of a sum that was not measured: what was of such ones, in the nearest number of pieces and then the nearest
        format. None where nothing was, and of what goes by its own table alone."""
        if self._impls[work.impl].needs_table:
            return None
        own, others = self._row_bytes(work, width), list[tuple[float, float, str, Composed]]()
        for key in self._collectives.in_other_formats(self._wanted(work), self._borrows(work)):
            other = work._replace(op=key.op, wire=key.wire, scale_group=key.scale_group, pieces=key.pieces)
            if (wire := _format(other)) is not None:
                apart = abs(math.log(wire.row_bytes(width) / own))
                others.append((abs(math.log(key.pieces / work.pieces)), apart, wire.words, other))
        return min(others)[-1] if others else None

    def _borrows(self, work: Composed) -> bool:
        """What a message takes through the memory of one host says nothing of another one."""
        return not self._impls[work.impl].is_through_host


def _format(work: Composed) -> Wire | None:
    """In which rows travel; None where they do as they are."""
    return KINDS[work.op].format_of(work.wire, work.scale_group)


class _StageOfRow(NamedTuple):
    """A collective by its name and the bytes of its buffer, or kernels and the bytes that they move: for each row."""

    collective: str | None
    bytes_a_row: float
    launch_us: float


class _Recipe(NamedTuple):
    """Stages of a sum; no piece has fewer than `whole_rows`.

    found  the table of the whole sum, if there is one
    like   without: the sum of the nearest format that has one
    """

    stages: tuple[_StageOfRow, ...]
    whole_rows: int
    launch_us: float
    found: Found | None
    like: Composed | None


class _Priced(NamedTuple):
    """What a sum takes, the library's calls of a piece one by one, the launches of a piece; the rest as in _Recipe."""

    total_us: float
    calls: list[Estimate]
    pieces: int
    launch_us: float
    found: Found | None
    like: Composed | None

    @property
    def calls_us(self) -> float:
        """What the calls take, one after another."""
        return self.pieces * sum(call.total_us for call in self.calls)
