"""Measured tables: one file per machine or per published source. Collectives always; kernels and GEMMs where measured.

`message_bytes` is the whole buffer: the gathered tensor of an all-gather, the input of a reduce-scatter or all-to-all.
One rule smooths what was measured: repeats of a size give their median; a point becomes the median of itself and its
two neighbours, which changes nothing but lone outliers; then neighbours in reversed order (a larger message that took
less time) are pooled to their geometric mean until the latency never falls with the size. Refused are only NaN, zero
and negative numbers, and a missing op.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .base import FieldError, Positive, PositiveInt, Provenance, Spec, Text

CALIBRATION_SCHEMA = "commplan/calibration/v1"
MessageBytes = Annotated[int, Field(gt=0, le=2**50, strict=True)]
Collective = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]
COLLECTIVES: tuple[Collective, ...] = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")


class Table(Spec):
    """Latency by message size, of one op by one impl on one group."""

    op: Collective
    impl: Text
    dtype: Literal["bf16", "int8", "fp32"]
    group_size: Annotated[int, Field(ge=2, strict=True)]
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


class Calibration(Spec):
    """All tables of one source.

    `ops` says which collectives the source covers (all four unless it says otherwise); a table of each must be there.
    """

    schema_: Literal["commplan/calibration/v1"] = Field(alias="schema")
    name: Text
    machine: Text
    library: Text
    provenance: Provenance
    source: Text
    notes: Text | None = None
    ops: tuple[Collective, ...] = COLLECTIVES
    fingerprint: dict[str, Text] | None = None  # of the machine, as `commplan calibrate` sees it
    tables: Annotated[tuple[Table, ...], Field(min_length=1)]
    kernels: tuple[KernelTable, ...] = ()
    gemms: tuple[GemmTable, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> Calibration:
        present = {table.op for table in self.tables}
        for op in self.ops:
            if op not in present:
                raise FieldError("tables", f"no table for {op}, though `ops` says that the source covers it")
        seen = set()
        for table in self.tables:
            key = (table.op, table.impl, table.dtype, table.group_size)
            if key in seen:
                raise FieldError("tables", f"two tables for {' '.join(map(str, key))}")
            seen.add(key)
        kernels: list[object] = [(k.kernels, k.group_size, k.dtype, k.width) for k in self.kernels]
        gemms: list[object] = [(g.inner, g.columns, g.dtype) for g in self.gemms]
        for field, keys in (("kernels", kernels), ("gemms", gemms)):
            if len(set(keys)) < len(keys):
                raise FieldError(field, "two tables for the same thing")
        return self
