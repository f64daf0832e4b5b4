"""Peers: collectives of our own over one group, for rows of one width.

All results are memory of their own, bit-equal on all ranks but for the sign of zeros; inputs stay as they are, and are
contiguous. But with `overwrite` nobody needs the old residual any more, and the new one may be written in its place.
The sum is rounded to the activation type before the residual is added, and that sum before it is normed: what comes out
of `*_norm` is what the sum followed by the backend's add_rms_norm gives. Nothing is launched for zero rows.

Shapes: T rows of the whole message, H width, N ranks of the group, S = ceil(T / N) rows of a shard, G rows of a DP
group. Rows that a shard has beyond T are zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple, Protocol

from torch import Tensor

from commplan.planner.strategy.file import OpKind
from commplan.planner.strategy.op_record import OwnKernel
from commplan.planner.strategy.words import ScaleGroup

Make = Callable[[int, int], None]
"""Fills rows [first, last) of a message."""


class Peers(ABC):
    """What the kernels of our own do over one group. Every rank of the group makes the same calls in the same order."""

    are_kernels: ClassVar[bool] = False
    """True where they are compiled when they are first called."""

    @abstractmethod
    def all_reduce(self, x_TH: Tensor, algorithm: str | None = None) -> Tensor:
        """[T, H] summed over the group; `algorithm`: one_shot | two_shot | pushed, None: by the size."""

    @abstractmethod
    def all_reduce_norm(
        self,
        x_TH: Tensor,
        residual_TH: Tensor | None,
        weight_H: Tensor,
        eps: float,
        algorithm: str | None = None,
        overwrite: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """(normed, residual), both [T, H]: the new residual is sum + residual; `residual_TH` None: it is the sum."""

    def push(self, x_TH: Tensor, half: int | None = None, make: Make | None = None) -> None:  # noqa: ARG002
        """Have `make` fill the rows of a message whose all-reduce `pushed` is asked for next, and send what is there.

        `half`: 0 or 1, on all ranks alike, and another one than at the last push unless a collective of all ranks
        stands between; None: they alternate. Here nothing is sent before it is asked for.
        """
        if make is not None:
            make(0, x_TH.shape[0])

    def read_ahead(self, weight: Tensor) -> None:  # noqa: B027
        """The next sum with a norm is followed by a GEMM with these weights, and may ask the cache for some of them."""

    @abstractmethod
    def int8_all_reduce(self, x_TH: Tensor, algorithm: str) -> Tensor:
        """As `all_reduce`, with per-token symmetric INT8 values on the wire; `algorithm`: gather | two_shot."""

    @abstractmethod
    def int8_all_reduce_norm(
        self,
        x_TH: Tensor,
        algorithm: str,
        residual_TH: Tensor | None,
        weight_H: Tensor,
        eps: float,
        overwrite: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """As `all_reduce_norm`, with INT8 on the wire."""

    @abstractmethod
    def quantized_all_reduce(self, x_TH: Tensor, algorithm: str, wire: str, group: ScaleGroup) -> Tensor:
        """As `int8_all_reduce`, in a format of KERNEL_WIRES with a scale for every `group` columns."""

    @abstractmethod
    def quantized_all_reduce_norm(
        self,
        x_TH: Tensor,
        algorithm: str,
        wire: str,
        group: ScaleGroup,
        residual_TH: Tensor | None,
        weight_H: Tensor,
        eps: float,
        overwrite: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """As `all_reduce_norm`, in such a format."""

    @abstractmethod
    def reduce_scatter(self, x_TH: Tensor) -> Tensor:
        """This rank's [S, H] of the sum of any number of rows."""

    @abstractmethod
    def reduce_scatter_norm(
        self, x_TH: Tensor, residual_SH: Tensor | None, weight_H: Tensor, eps: float, overwrite: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(normed, residual) of this rank's shard, both [S, H]."""

    @abstractmethod
    def all_gather(self, x_SH: Tensor) -> Tensor:
        """[S, H] of each rank to [N * S, H]."""

    @abstractmethod
    def gather_sum(self, x_GH: Tensor, attn_tp: int, algorithm: str | None = None) -> Tensor:
        """[G, H], partial over the attn_tp neighbours of a DP group, to the sums of all DP groups [N / attn_tp * G, H].

        Rank = DP group * attn_tp + rank in it. `algorithm`: one_shot or two_shot, the same bits; None: by the size.
        """

    @abstractmethod
    def scatter_sum(self, x_TH: Tensor, attn_tp: int, algorithm: str | None = None) -> Tensor:
        """[T, H], partial over the group, to the sum of this rank's DP group [T / (N / attn_tp), H]; so told."""

    @abstractmethod
    def check(self) -> None:
        """Raises BoundaryError if a kernel has given up waiting for a rank; looks at a flag on the host."""

    @abstractmethod
    def close(self) -> None:
        """Give the memory back. Every rank of the group calls it; no call may follow."""


class Told(NamedTuple):
    """How an op is done: its algorithm, and the format of one that names its own."""

    algorithm: str | None = None
    wire: str | None = None
    group: ScaleGroup | None = None


def bare(peers: Peers, kind: OpKind, told: Told, attn_tp: int) -> Callable[[Tensor], Tensor]:
    """The call that performs an op, as its record names it."""
    kernel = kind.kernel
    assert kernel is not None
    call: Callable[..., Tensor] = getattr(peers, kernel.call)
    if kernel.argument is None:
        return call
    if kernel.argument == "attn_tp":
        return lambda x: call(x, attn_tp, told.algorithm)
    arguments = _arguments(kernel, told)
    return lambda x: call(x, **arguments)


def _arguments(kernel: OwnKernel, told: Told) -> dict[str, str | None]:
    """What a sum is told besides rows."""
    if kernel.argument is None:
        return {}
    return {"algorithm": told.algorithm} if kernel.argument == "algorithm" else told._asdict()


class SumWithNorm(Protocol):
    """The call that performs an op, the residual add and the norm."""

    def __call__(
        self, x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, /, *, overwrite: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(normed, residual)."""


def with_norm(peers: Peers, kind: OpKind, told: Told) -> SumWithNorm:
    """As `bare`, with the residual add and the norm."""
    kernel = kind.kernel
    assert kernel is not None and kernel.norm
    call: Callable[..., tuple[Tensor, Tensor]] = getattr(peers, f"{kernel.call}_norm")
    arguments = _arguments(kernel, told)
    if not arguments:
        return call

    def run(
        x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, /, *, overwrite: bool = False
    ) -> tuple[Tensor, Tensor]:
        return call(x, residual_TH=residual, weight_H=weight, eps=eps, overwrite=overwrite, **arguments)

    return run
