"""Measured tables: one file per machine or per published source. Collectives always; kernels and GEMMs where measured.

`message_bytes` is the whole buffer: the gathered tensor of an all-gather, the input of a reduce-scatter or all-to-all.
Of an op that is one kernel it is the activations it works on, whatever travels: rows x width x bytes of their type.
One rule smooths what was measured: repeats of a size give their median; a point becomes the median of itself and its
two neighbours, which changes nothing but lone outliers; then neighbours in reversed order (a larger message that took
less time) are pooled to their geometric mean until the latency never falls with the size. Refused are only NaN, zero
and negative numbers, and a missing op.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from ..strategy.op_kinds import KINDS
from ..strategy.op_record import OpKind
from ..strategy.ops import MAX_PIECES, NONE
from ..strategy.words import Provenance, ScaleGroup
from .base import FieldError, GrownSpec, Positive, PositiveInt, Spec, Text, one_of

CALIBRATION_SCHEMA = "commplan/calibration/v1"
MessageBytes = Annotated[int, Field(gt=0, le=2**50, strict=True)]
Collective = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]
COLLECTIVES: tuple[Collective, ...] = get_args(Collective)
"""Those of the records, which a test sees to: a type cannot be read from data."""


@cache
def _measured() -> dict[str, OpKind | None]:
    """Everything that tables are of: collectives of libraries, then ops by one kernel, of commplan's or of others."""
    own = {n: k for n, k in KINDS.items() if (k.kernel is not None and k.table == n) or k.wires}
    return dict.fromkeys(COLLECTIVES) | own


class Table(GrownSpec):
    """Latency by message size, of one op by one impl on one group.

    op         a collective of a library, or an op that is one kernel of commplan's
    algorithm  of an op that has several, or that commplan's kernels are told
    attn_dp    of a MixedComm pair: the DP groups among its `group_size` ranks
    wire, scale_group  of a sum whose op names its format
    pieces     into which a composed impl cut the rows; one where it is not said
    width      elements per row, where the impl works on rows; a table without it fits any
    """

    LATER: ClassVar = ("algorithm", "attn_dp", "wire", "scale_group", "pieces", "width")

    op: Annotated[Text, Field(json_schema_extra=lambda schema: schema.update(enum=list(_measured())))]
    algorithm: Text | None = None
    impl: Text
    dtype: Literal["bf16", "fp16", "int8", "fp32"]
    group_size: Annotated[int, Field(ge=2, strict=True)]
    attn_dp: Annotated[int, Field(ge=2, strict=True)] | None = None
    wire: Text | None = None
    scale_group: ScaleGroup | None = None
    pieces: Annotated[int, Field(ge=1, le=MAX_PIECES, strict=True)] | None = None
    width: PositiveInt | None = None
    message_bytes: Annotated[tuple[MessageBytes, ...], Field(min_length=2)]
    latency_us: Annotated[tuple[Positive, ...], Field(min_length=2)]
    relative_spread: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | None = (
        None  # between repeats, as measured
    )

    @model_validator(mode="after")
    def _pairs(self) -> Table:
        if len(self.message_bytes) != len(self.latency_us):
            raise FieldError(
                "latency_us",
                f"{self.op} over {self.group_size}: {len(self.message_bytes)} sizes, {len(self.latency_us)} latencies",
            )
        return self

    @field_validator("op")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in _measured():
            raise ValueError(one_of(_measured()))
        return value

    @model_validator(mode="after")
    def _says_which(self) -> Table:
        measured = _measured()
        kinds = {name: kind for name, kind in measured.items() if kind is not None}
        needed = [name for name, kind in kinds.items() if kind.algorithms]
        chosen = {name: kind.known_algorithms for name, kind in kinds.items() if kind.known_algorithms}
        pairs = [name for name, kind in kinds.items() if kind.spans_two]
        for field, given, ops, musts in (
            ("algorithm", self.algorithm, list(chosen), needed),
            ("attn_dp", self.attn_dp, pairs, pairs),
        ):
            if given is None and self.op in musts:
                raise FieldError(field, f"is missing: a table of {self.op} says its {field}", kind="missing_key")
            if given is not None and self.op not in ops:
                raise FieldError(field, f"{self.op} has none; it belongs to {' and '.join(ops)}", given)
        kind = KINDS.get(self.op, NONE.kind)
        cut = self.algorithm in kind.composed_algorithms and not kind.way(self.algorithm).in_one_launch
        if self.pieces is not None and not cut:
            raise FieldError("pieces", f"{self.op} has none; they are of sums by whole messages", self.pieces)
        self._says_its_format([name for name, kind in kinds.items() if kind.wires])
        if self.algorithm is not None and self.algorithm not in chosen[self.op]:
            raise FieldError("algorithm", one_of(chosen[self.op]), self.algorithm)
        if self.attn_dp is not None and (self.group_size % self.attn_dp or self.attn_dp == self.group_size):
            text = f"does not split {self.group_size} ranks into DP groups of two and more"
            raise FieldError("attn_dp", text, self.attn_dp)
        return self

    def _says_its_format(self, ops: list[str]) -> None:
        """A table of an op that travels in several formats says which, and the columns of a scale."""
        for field, given in (("wire", self.wire), ("scale_group", self.scale_group)):
            if given is None and self.op in ops:
                raise FieldError(field, f"is missing: a table of {self.op} says its {field}", kind="missing_key")
            if given is not None and self.op not in ops:
                raise FieldError(field, f"{self.op} has none; it belongs to {' and '.join(ops)}", given)
        if self.wire is not None and self.wire not in KINDS[self.op].wires:
            raise FieldError("wire", one_of(KINDS[self.op].wires), self.wire)


class KernelTable(Spec):
    """Latency by message size, of one step of an executor: kernels that pass over memory, launches included.

    `kernels` are their names in the executor's file, in order; `group_size` the copies that a dequantising step takes.
    """

    kernels: Annotated[tuple[Text, ...], Field(min_length=1)]
    group_size: Annotated[int, Field(ge=1, strict=True)] = 1
    dtype: Literal["bf16", "fp16", "fp32"]
    width: PositiveInt
    message_bytes: Annotated[tuple[MessageBytes, ...], Field(min_length=2)]
    latency_us: Annotated[tuple[Positive, ...], Field(min_length=2)]
    relative_spread: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | None = None

    @model_validator(mode="after")
    def _pairs(self) -> KernelTable:
        if len(self.message_bytes) != len(self.latency_us):
            raise FieldError("latency_us", f"{len(self.message_bytes)} sizes, {len(self.latency_us)} latencies")
        return self


class GemmTable(Spec):
    """Latency by rows, of [rows, inner] x [inner, columns]."""

    inner: PositiveInt
    columns: PositiveInt
    dtype: Literal["bf16", "fp16", "fp32"]
    rows: Annotated[tuple[PositiveInt, ...], Field(min_length=2)]
    latency_us: Annotated[tuple[Positive, ...], Field(min_length=2)]
    relative_spread: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | None = None

    @model_validator(mode="after")
    def _pairs(self) -> GemmTable:
        if len(self.rows) != len(self.latency_us):
            raise FieldError("latency_us", f"{len(self.rows)} row counts, {len(self.latency_us)} latencies")
        return self


class HostTable(Spec):
    """Times on the host, in us, from call to call within an eager forward.

    launch_us  one ordinary kernel of a layer of modules
    calls      one call, by impl; of a library over all ranks
    """

    launch_us: Positive
    calls: dict[Text, Positive] = Field(default_factory=dict)


class ImportedFile(Spec):
    """An output of a benchmark that tables were made of.

    sha256      of its bytes, the first 16 digits
    version     of the tool, where its output says
    group_size  ranks of the run
    nodes       that they were spread over; hosts of a rack that one switch joins are one
    """

    file: Text
    sha256: Text
    tool: Text
    version: Text | None = None
    group_size: Annotated[int, Field(ge=2, strict=True)]
    nodes: PositiveInt = 1


class Calibration(GrownSpec):
    """All tables of one source.

    `ops` says which collectives the source covers (all four unless it says otherwise); a table of each must be there.
    """

    LATER: ClassVar = ("host", "imported")

    schema_: Literal["commplan/calibration/v1"] = Field(alias="schema")
    name: Text
    machine: Text
    library: Text
    provenance: Provenance
    source: Text
    notes: Text | None = None
    ops: tuple[Collective, ...] = COLLECTIVES
    fingerprint: dict[str, Text] | None = None  # of the machine, as `commplan calibrate` sees it
    imported: tuple[ImportedFile, ...] | None = None  # by `commplan import-table`
    tables: Annotated[tuple[Table, ...], Field(min_length=1)]
    kernels: tuple[KernelTable, ...] = ()
    gemms: tuple[GemmTable, ...] = ()
    host: HostTable | None = None

    def span_refused(self, devices_per_node: int) -> str | None:
        """Why an imported run is of another link than this machine has for so many ranks; None where it is of the same.

        A group that fits a node is joined by its link; two devices of two nodes are a slower pair than two of one.
        """
        for run in self.imported or ():
            inside = run.group_size <= devices_per_node
            if inside == (run.nodes > 1):
                where = f"{run.nodes} nodes" if run.nodes > 1 else "one node"
                here = "one node" if inside else "more than one node"
                return (
                    f"{run.file} was measured by {run.group_size} ranks on {where}, and so many are {here} of a "
                    f"machine of {devices_per_node} devices a node; say in transferred_because why it may stand in"
                )
        return None

    @model_validator(mode="after")
    def _complete(self) -> Calibration:
        present = {table.op for table in self.tables}
        for op in self.ops:
            if op not in present:
                raise FieldError("tables", f"no table for {op}, though `ops` says that the source covers it")
        seen = set()
        for table in self.tables:
            format_ = (table.algorithm, table.wire, table.scale_group, table.pieces)
            key = (table.op, *format_, table.impl, table.dtype, table.group_size, table.attn_dp, table.width)
            if key in seen:
                raise FieldError("tables", f"two tables for {' '.join(str(part) for part in key if part is not None)}")
            seen.add(key)
        kernels: list[object] = [(k.kernels, k.group_size, k.dtype, k.width) for k in self.kernels]
        gemms: list[object] = [(g.inner, g.columns, g.dtype) for g in self.gemms]
        for field, keys in (("kernels", kernels), ("gemms", gemms)):
            if len(set(keys)) < len(keys):
                raise FieldError(field, "two tables for the same thing")
        return self
