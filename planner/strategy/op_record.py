"""What the record of an op is made of: library collectives, steps, ways, and what becomes of the rows.

Data with the few questions that callers ask of it. The records themselves stand in op_kinds.py. Light on purpose: the
runtime loads this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Literal

from .wire import Error, Part, Wire
from .words import GroupName, Numerics, ScaleGroup, StepRows

Rounds = Callable[[int, int, float, float], tuple[tuple[int, float], ...]]
"""(tp, attn_tp, bytes of all rows, bytes of a DP group's) to ways of (signal rounds, bytes received)."""


class Rows(Enum):
    """What becomes of the rows of the hidden stream."""

    STAY = "nothing runs"
    TAKEN = "the op before has done the work of this boundary"
    SLICED = "each rank keeps its own"
    GATHERED = "shards to all rows"
    SUMMED = "sums of all rows that attention consumes"
    SCATTERED = "sums of one shard each"
    CROSSED = "sums, brought from attention's side to the MLP's or back"


@dataclass(frozen=True, slots=True)
class Collective:
    """A collective of a library. `halves`: those that do the same in two steps."""

    name: str
    halves: tuple[str, ...] = ()
    takes_shards: bool = False  # a rank puts in its shard of the buffer, not all of it

    @property
    def passes(self) -> int:
        """How often (N-1)/N of the buffer reaches a rank, by an algorithm that wastes nothing."""
        return max(1, len(self.halves))

    def received(self, ranks: int) -> float:
        """Bytes that a rank receives, as a multiple of the whole buffer."""
        return self.passes * (ranks - 1) / ranks


@dataclass(frozen=True, slots=True)
class Send:
    """A step: a library collective over the op's group, or over the axis of attention DP that `over` names."""

    by: Collective
    rows: StepRows = "message"
    over: GroupName | None = None
    part: Part = "activations"
    whole: bool = False  # brings every rank's whole message, so the buffer is as many of them


@dataclass(frozen=True, slots=True)
class Pass:
    """A step: kernels over memory, as the kernel tables of executors name them. `copies`: over every rank's part."""

    step: str
    rows: StepRows = "message"
    copies: bool = False


Step = Send | Pass


@dataclass(frozen=True, slots=True)
class Workspace:
    """What a rank holds beside message and result while a library performs an op, in messages of each kind.

    `per_rank` ones are held of every rank's message; a shard is of activations.
    """

    values: int = 0
    values_per_rank: int = 0
    fp32: int = 0
    fp32_per_rank: int = 0
    shards: int = 0


@dataclass(frozen=True, slots=True)
class Way:
    """One way to perform an op: its algorithm, or the only one.

    steps      by a library, in order
    workspace  while those run
    peers      by one kernel, what a peer writes into its memory: its shards there and back, its whole message (pushed:
               by copies, behind the GEMM that makes it), or the rows of a DP group
    error      of a sum that loses information
    in_one_launch  around whole messages: a kernel of ours does all of it, and pieces hide nothing
    """

    steps: tuple[Step, ...] = ()
    workspace: Workspace = Workspace()
    peers: Literal["shards", "message", "pushed", "dp_local"] = "shards"
    error: Error | None = None
    in_one_launch: bool = False

    @property
    def keeps_rows(self) -> bool:
        """A library gives the rows of the message, whatever their number."""
        return all(send.rows == "message" for send in self.sends)

    @property
    def exchanges(self) -> int:
        """How often ranks wait for each other in one kernel: parts travel side by side, a whole message once."""
        if self.peers in ("message", "pushed"):
            return 1
        passes: dict[Part, int] = {}
        for send in self.sends:
            passes[send.part] = passes.get(send.part, 0) + send.by.passes
        return max(passes.values())

    @property
    def sends(self) -> Iterator[Send]:
        """The steps that travel."""
        return (step for step in self.steps if isinstance(step, Send))

    @property
    def passes(self) -> Iterator[Pass]:
        """The steps that travel nowhere."""
        return (step for step in self.steps if isinstance(step, Pass))


@dataclass(frozen=True, slots=True)
class OwnKernel:
    """An op by one kernel of commplan's.

    call       what performs it: a method of the runtime's `Peers`
    argument   what it is told besides the rows; `format`: the algorithm, the format and the columns of a scale
    ways       by which a plan may have it done where the op has one way: by algorithm; told none, it goes by the size
    norm       there is one more that does the residual add and the norm as well: `<call>_norm`
    table      the op under which it is measured, where that is another (the same kernel on narrower rows)
    """

    call: str
    argument: Literal["algorithm", "attn_tp", "format"] | None = None
    ways: Mapping[str, Way] = field(default_factory=dict)
    norm: bool = False
    table: str | None = None


@dataclass(frozen=True, eq=False)
class OpKind:
    """The record of an op: what all ops of one name have in common.

    rows       what becomes of the rows; a sum completes a partial
    enters     the rows that a rank brings: the message, its shard, or those of its DP group
    ways       how it is performed: by algorithm, or the only way under None
    wire       its format, where rows do not travel as they are
    wires      formats by name, where an op of the name says which one, and how many columns share a scale
    errors     of those, by format, columns of a scale and algorithm: what stands here is what there is
    colour     in every chart
    is_plain   what a forward runs that nobody planned
    folds      may carry the residual in its sum
    widens     may sum a DP group's rows over all tp ranks, in a buffer of zeros
    latent     works on the latents of MLA in place of hidden rows
    kernel     commplan's own, where there is one
    composed   by kernels around what carries whole messages, of an op that a library performs in one way: by algorithm,
               which may be one of the kernel's too
    rounds     of a fused peer-to-peer kernel, where there is one
    """

    name: str
    boundaries: tuple[str, ...]
    rows: Rows
    summary: str
    colour: str
    numerics: Numerics = "exact"
    parameters: tuple[str, ...] = ()
    enters: Literal["message", "shard", "dp_local"] = "message"
    ways: Mapping[str | None, Way] = field(default_factory=lambda: {None: Way()})
    wire: Wire | None = None
    wires: Mapping[str, Wire] = field(default_factory=dict)
    errors: Mapping[tuple[str, ScaleGroup, str | None], Error] = field(default_factory=dict)
    is_plain: bool = False
    folds: bool = False
    widens: bool = False
    latent: bool = False
    kernel: OwnKernel | None = None
    composed: Mapping[str, Way] = field(default_factory=dict)
    rounds: Rounds | None = None

    def __post_init__(self) -> None:
        if not self.is_quantized:
            return
        if self.wires:
            for (name, group, algorithm), error in self.errors.items():
                if not error.by_ranks or not error.source:
                    raise ValueError(f"{self.name} ({name}, {group}, {algorithm}) needs an error and its source")
            if missing := set(self.wires) - {name for name, _, _ in self.errors}:
                raise ValueError(f"{self.name}: {', '.join(sorted(missing))} needs an error and its source")
            return
        if self.wire is None:
            raise ValueError(f"{self.name} is quantized, so its record needs its wire format")
        for algorithm, way in self.ways.items() or [(None, Way())]:
            if way.error is None or not way.error.by_ranks or not way.error.source:
                raise ValueError(f"{self.name} ({algorithm}) is quantized, so its record needs an error and its source")

    # ---- what it does -----------------------------------------------------------------------------------------------

    @cached_property
    def is_none(self) -> bool:
        """Nothing runs, and nothing is due."""
        return self.rows is Rows.STAY

    @cached_property
    def runs(self) -> bool:
        """Something runs at the boundary where it stands."""
        return self.rows not in (Rows.STAY, Rows.TAKEN)

    @cached_property
    def is_collective(self) -> bool:
        """Ranks talk to each other."""
        return self.sums or self.gathers

    @cached_property
    def sums(self) -> bool:
        """Completes a partial sum."""
        return self.rows in (Rows.SUMMED, Rows.SCATTERED, Rows.CROSSED)

    @cached_property
    def gathers(self) -> bool:
        """Brings shards together."""
        return self.rows is Rows.GATHERED

    @cached_property
    def spans_two(self) -> bool:
        """Does the work of the next boundary too, which then says `fused`."""
        return self.rows is Rows.CROSSED

    @cached_property
    def is_quantized(self) -> bool:
        """Loses information on the way."""
        return self.numerics == "quantized"

    @cached_property
    def formats(self) -> tuple[Wire, ...]:
        """Every format in which ops of the name may travel; none where rows do as they are."""
        return tuple(self.wires.values()) if self.wire is None else (self.wire,)

    def format_of(self, wire: str | None, group: ScaleGroup | None) -> Wire | None:
        """The format of an op that says which one, or the only one there is."""
        return self.wires[wire].grouped(group or "token") if wire is not None else self.wire

    def groups_of(self, wire: str) -> tuple[ScaleGroup, ...]:
        """The columns of a scale by which the error of a format is known."""
        return tuple(dict.fromkeys(group for name, group, _ in self.errors if name == wire))

    # ---- how it is done ---------------------------------------------------------------------------------------------

    @cached_property
    def algorithms(self) -> tuple[str, ...]:
        """The algorithms among which an op of this name chooses, and says which; empty where there is one way."""
        return tuple(algorithm for algorithm in self.ways if algorithm is not None)

    @cached_property
    def own_algorithms(self) -> tuple[str, ...]:
        """Those that commplan's own kernel may be told, and need not be."""
        return tuple(self.kernel.ways) if self.kernel else ()

    @cached_property
    def composed_algorithms(self) -> tuple[str, ...]:
        """Those by which kernels around whole messages perform it."""
        return self.algorithms if self.is_quantized else tuple(self.composed)

    @cached_property
    def known_algorithms(self) -> tuple[str, ...]:
        """Every algorithm that an op of this name may say."""
        return self.algorithms or tuple(dict.fromkeys((*self.own_algorithms, *self.composed)))

    def way(self, algorithm: str | None) -> Way:
        """How it is performed: by an algorithm, or in the only way there is."""
        if algorithm is not None and algorithm in self.composed:
            return self.composed[algorithm]
        if algorithm is not None and self.kernel is not None and algorithm in self.kernel.ways:
            return self.kernel.ways[algorithm]
        return self.ways[algorithm]

    @cached_property
    def table(self) -> str:
        """The op under whose name tables of its kernel stand."""
        return (self.kernel.table if self.kernel else None) or self.name

    def received(self, algorithm: str | None, ranks: int, attn_tp: int) -> dict[Part, tuple[int, int]]:
        """What a rank of a group of `ranks` receives by part, as a fraction of the whole message of that part."""
        found: dict[Part, tuple[int, int]] = {}
        units = {"message": ranks, "padded": ranks, "dp_local": attn_tp}
        for send in self.way(algorithm).sends:
            size = {None: ranks, "attn_tp": attn_tp, "attn_dp": ranks // attn_tp}[send.over]
            buffer = units[send.rows] * (ranks if send.whole else 1)
            over, under = send.by.passes * (size - 1) * buffer, size * ranks
            before, base = found.get(send.part, (0, 1))
            found[send.part] = before * under + over * base, base * under
        return found

    def message_rows(self, ranks: int, attn_tp: int) -> tuple[int, int]:
        """Rows of the message for each row that a rank brings, as a fraction."""
        return ranks, {"message": ranks, "shard": 1, "dp_local": attn_tp}[self.enters]

    def received_per_row(
        self,
        algorithm: str | None,
        ranks: int,
        attn_tp: int,
        width: int,
        element: float,
        wire: Wire | None = None,
    ) -> float:
        """Bytes that a rank receives for each row of `width` that it brings, `element` bytes each where they travel
        as they are. `wire`: the format of an op that says which."""
        row_bytes: dict[Part, float] = {"activations": width * element}
        if (sent := wire or self.wire) is not None:
            row_bytes |= sent.parts(width)
        rows, brought = self.message_rows(ranks, attn_tp)
        total = 0.0
        for part, (over, under) in self.received(algorithm, ranks, attn_tp).items():
            total += row_bytes[part] * (over * rows) / (under * brought)
        return total
