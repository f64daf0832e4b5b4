"""The parts that an op's cost is made of. None depends on the token count: a Term is priced once per count."""

from __future__ import annotations

from typing import NamedTuple

from ..executors import Kernels
from ..strategy.words import Category, GroupName, RowRule, ScaleGroup


class Wire(NamedTuple):
    """A library collective; the whole buffer is rows x width x bytes_per_element."""

    op: str
    impl: str
    dtype: str
    group: GroupName
    bytes_per_element: float


class PeerKernel(NamedTuple):
    """A fused kernel over all tp ranks; the record of its op knows what it reads from peers."""

    op: str


class OneKernel(NamedTuple):
    """An op that is one kernel of commplan's, priced by a table of its own, else by a formula.

    What the kernel does besides moving rows (INT8 there and back, residual add and norm) is in that table. Sizes are
    rows x width x bytes_per_element of the activations, whatever travels. `attn_dp` tells the MixedComm pairs apart.
    """

    op: str  # under whose name it is measured
    impl: str
    dtype: str
    group: GroupName
    bytes_per_element: float
    algorithm: str | None = None
    attn_dp: int | None = None
    wire: str | None = None  # the format, of an op that names its own, and columns of a scale
    scale_group: ScaleGroup | None = None


class Composed(NamedTuple):
    """What carries the messages in a sum by kernels around it: calls of the library, one after another, or
    copies through the host's memory.

    Sizes are rows x width x bytes_per_element of the activations, whatever travels. With a table of its own this is all
    that the sum takes. `wire` and `scale_group` as OneKernel has them.
    """

    op: str
    impl: str
    backend: str
    dtype: str
    group: GroupName
    bytes_per_element: float
    algorithm: str
    wire: str | None = None
    scale_group: ScaleGroup | None = None
    pieces: int = 1


class Unhidden(NamedTuple):
    """What of the kernels of such a sum its messages on their way do not hide."""

    around: Composed


class HandOver(NamedTuple):
    """Both streams of a stage to the next one: every rank sends what it holds to its like, or a slice of that, which
    the ranks there gather. `group` is those that hold the same rows; None: nobody else does."""

    impl: str
    dtype: str
    group: GroupName | None
    bytes_per_element: float
    op: str = "hand_over"
    streams: int = 2


class Passes(NamedTuple):
    """Kernels that pass over memory; `group_size` is the N of gathered and shard."""

    kernels: Kernels
    group_size: int


class Gemm(NamedTuple):
    """[rows, width] x [width, columns]."""

    columns: int


COMMUNICATION = (Wire, PeerKernel, OneKernel, HandOver, Composed)
SCALED = (Gemm,)
"""What a measured step scales: arithmetic. Passes over memory take what bandwidth and tables say, whatever is beside
them; a step that is longer than modelled is longer by its GEMMs, its attention, and work that no model lists."""


class Term(NamedTuple):
    """One priced part of an op.

    category  what it is for
    rows      the rows that it works on
    width     elements per row
    """

    category: Category
    label: str
    rows: RowRule
    width: int
    work: Wire | PeerKernel | OneKernel | Composed | Unhidden | HandOver | Passes | Gemm
