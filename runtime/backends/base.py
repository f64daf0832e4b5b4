"""The small interface that every backend has, written with torch.distributed and torch ops.

Shapes: a message is [rows, width]; N is the size of the group. Collectives want contiguous input and return new
tensors, but for `all_reduce`, which may work in place.

torch 2.13 renamed the single-tensor collectives; `_spelled` takes whichever name is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from commplan.planner.strategy.vendors import BACKENDS

from ..errors import RefusedError
from ..kernels.peer_impls import PEER_IMPLS, PeerLimits, Room
from ..kernels.wire.layout import RowLayout
from ..kernels.wire.plain import WireRows
from ..kernels.wire.row_sums import RowSums
from ..ranks.groups import Group

if TYPE_CHECKING:
    from ..kernels.peers import Peers


def plain_norm(norm: torch.nn.Module) -> bool:
    """May a kernel that norms by weight and epsilon stand for this module? `mark_norms` has looked."""
    return getattr(norm, "_commplan_plain", True) is True


def _spelled(*names: str) -> Callable[..., Any]:
    for name in names:
        if hasattr(dist, name):
            found: Callable[..., Any] = getattr(dist, name)
            return found
    raise ImportError(f"torch.distributed has none of {', '.join(names)}")


_all_gather = _spelled("all_gather_single", "all_gather_into_tensor")
_reduce_scatter = _spelled("reduce_scatter_single", "reduce_scatter_tensor")


class Pending(Protocol):
    """A collective that runs beside what follows."""

    def wait(self) -> Any:
        """What follows on the device comes after it."""


class Backend:
    """Collectives and kernels of one library."""

    name = "base"
    peer_limits: PeerLimits | None = None
    """What its `peers` take; None where it has none."""
    gathers_in_place = False
    """May what a rank sends to an all-gather be its part of what it receives?"""

    @property
    def device_type(self) -> str:
        """Of its devices, as torch spells it."""
        return BACKENDS[self.name].device_type

    @property
    def torch_name(self) -> str:
        """Of its process groups."""
        return BACKENDS[self.name].torch_name or self.name

    def device(self, local_rank: int) -> torch.device:
        """The device of a rank."""
        return torch.device(self.device_type, local_rank) if self.device_type != "cpu" else torch.device("cpu")

    def device_count(self) -> int:
        """Devices of this host that ranks can have; a CPU has room for any number."""
        return 2**31

    # ---- collectives ------------------------------------------------------------------------------------------------

    def all_reduce(self, x: Tensor, group: Group) -> Tensor:
        """[rows, width] summed over the group, in place."""
        dist.all_reduce(x, group=group.handle)
        return x

    def reduce_scatter(self, x: Tensor, group: Group) -> Tensor:
        """[N * rows, width] to this rank's [rows, width] of the sum."""
        out = x.new_empty(x.shape[0] // group.size, *x.shape[1:])
        _reduce_scatter(out, x, group=group.handle)
        return out

    def all_gather(self, x: Tensor, group: Group) -> Tensor:
        """[rows, width] of each rank to [N * rows, width]."""
        out = x.new_empty(x.shape[0] * group.size, *x.shape[1:])
        _all_gather(out, x, group=group.handle)
        return out

    def all_to_all(self, x: Tensor, group: Group) -> Tensor:
        """[N * rows, width]: block i goes to rank i, and comes from rank i."""
        out = torch.empty_like(x)
        dist.all_to_all_single(out, x, group=group.handle)
        return out

    def all_to_all_uneven(self, x: Tensor, sent: list[int], received: list[int], group: Group) -> Tensor:
        """As `all_to_all`, with `sent[i]` rows to rank i and `received[i]` rows from it."""
        out = x.new_empty(sum(received), *x.shape[1:])
        dist.all_to_all_single(out, x, output_split_sizes=received, input_split_sizes=sent, group=group.handle)
        return out

    def start_all_gather(self, out: Tensor, x: Tensor, group: Group) -> Pending:
        """`all_gather` of x into `out`, beside what follows on the device until `wait` of what is returned."""
        pending: Pending = _all_gather(out, x, group=group.handle, async_op=True)
        return pending

    def start_all_to_all(self, out: Tensor, x: Tensor, group: Group) -> Pending:
        """As `start_all_gather`, of `all_to_all`."""
        pending: Pending = dist.all_to_all_single(out, x, group=group.handle, async_op=True)
        return pending

    def peers(self, group: Group, device: torch.device, dtype: torch.dtype, width: int, room: Room) -> Peers:  # noqa: ARG002
        """Collectives of our own over a group, for rows of `width` elements, with room for so many.

        Every rank of the group calls this, in the same order: the ranks share memory from then on.
        """
        impls = " or ".join(PEER_IMPLS)
        raise RefusedError(
            f"{self.name} has no collectives of our own; plan again without them", field="impl", value=impls
        )

    # ---- kernels ----------------------------------------------------------------------------------------------------

    def wire_rows(self, layout: RowLayout) -> WireRows:
        """What makes records of rows and sums of records, for one layout: in plain torch where there are no kernels."""
        return WireRows(layout)

    def row_sums(self, rank: int) -> RowSums:
        """What sums rows that travel as they are, on a rank of its group; likewise."""
        return RowSums(rank)

    def quantize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[rows, width] to INT8 values and one fp32 scale per row [rows, 1]: scale = max|x| / 127, round to nearest.

        A row with NaN or Inf gets a scale that is not finite, so that nothing finite comes out of it.
        """
        scale = torch.linalg.vector_norm(x, ord=float("inf"), dim=-1, keepdim=True, dtype=torch.float32) / 127.0
        divisor = torch.where(scale == 0, torch.ones_like(scale), scale)
        return (x / divisor).round_().to(torch.int8), scale

    def dequantize_sum(self, values: Tensor, scales: Tensor, copies: int, dtype: torch.dtype) -> Tensor:
        """[copies * rows, width] INT8 values with scales to the sum of the copies [rows, width]; fp32 accumulation."""
        rows, width = values.shape[0] // copies, values.shape[1]
        products = values.view(copies, rows, width) * scales.view(copies, rows, 1)
        return products.sum(0).to(dtype)

    def dequantize(self, values: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
        """INT8 values with scales to `dtype`."""
        return (values * scales).to(dtype)

    def rms_norm(self, x: Tensor, norm: torch.nn.Module) -> Tensor:
        """RMSNorm by the model's own module, as every backend does where `plain_norm` is false."""
        out: Tensor = norm(x)
        return out

    def add_rms_norm(self, x: Tensor, residual: Tensor, norm: torch.nn.Module) -> tuple[Tensor, Tensor]:
        """(norm(x + residual), x + residual): the seam where a fused kernel goes."""
        total = residual + x
        return self.rms_norm(total, norm), total
