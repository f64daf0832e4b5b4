"""Our collectives of one group: which kernel performs an op, on which workspace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from commplan.planner.strategy.file import INT8_ALL_REDUCE

from ..errors import BoundaryError, RefusedError
from ..ranks.groups import Group
from . import custom_ops
from .all_gather import all_gather_kernel
from .mixed_comm import gather_sum_kernel, scatter_sum_kernel
from .one_shot import one_shot_kernel
from .peer_impls import KERNEL_LIMITS, Room
from .peers import Peers
from .reduce_scatter import reduce_scatter_kernel
from .room import half_bytes, one_shot_bytes
from .row_launch import flattened, launch
from .symmetric import ABSENT_8, ABSENT_16, Workspace, make_workspace
from .two_shot import two_shot_kernel

_LOOKS = 1 << 26  # about half a microsecond each: half a minute


class Task(NamedTuple):
    """What an op works on; without a weight it norms nothing."""

    x: Tensor
    residual: Tensor | None
    weight: Tensor | None
    eps: float
    out: Tensor
    total: Tensor

    @property
    def arrays(self) -> tuple[Tensor, ...]:
        """For a kernel, which takes a pointer even for what it does not read."""
        x, residual, weight = self.x, self.residual, self.weight
        return x, x if residual is None else residual, x if weight is None else weight, self.out, self.total

    @property
    def flags(self) -> dict[str, Any]:
        """For a kernel."""
        return {"NORM": self.weight is not None, "RESIDUAL": self.residual is not None, "eps": (self.eps,)}


class PeerKernels(Peers):
    """Collectives of a group by Triton kernels over symmetric memory.

    Results are the same bits on every rank, but for the sign of zeros. Calls of a group run on one stream, in the same
    order on all ranks. Once a row has not come, every later result on this rank is NaN, and `check` says why; only new
    Peers help. Workspaces: `plain` for rows of 2-byte elements, `small` for rows in INT8; None where no room was asked
    for. `state`: int64 [1] on the device, as in calls.py. `error`: int32 [1] in pinned host memory, 1 from then on.
    """

    def __init__(
        self, group: Group, plain: Workspace | None, small: Workspace | None, state: Tensor, error: Tensor
    ) -> None:
        self._group, self._plain, self._small = group, plain, small
        self._state, self._error = state, error
        self.looks = _LOOKS
        self.handle = custom_ops.register(self)

    @classmethod
    def make(cls, group: Group, device: torch.device, dtype: torch.dtype, width: int, room: Room) -> PeerKernels:
        """Every rank of the group must call this, in the same order."""
        check(group, dtype, width)
        state = torch.zeros(1, dtype=torch.int64, device=device)
        error = torch.zeros(1, dtype=torch.int32, device="cpu", pin_memory=True)
        plain, small = half_bytes(group.size, width, room)
        return cls(
            group,
            make_workspace(group, device, plain, ABSENT_16) if plain else None,
            make_workspace(group, device, small, ABSENT_8) if small else None,
            state,
            error,
        )

    @property
    def size(self) -> int:
        """Ranks of the group."""
        return self._group.size

    def check(self) -> None:
        """Raises BoundaryError if a kernel has given up waiting for a peer. Costs no synchronisation."""
        if int(self._error[0]):
            raise BoundaryError(
                "a peer has sent nothing for half a minute: its process has ended or hangs", where="commplan_triton"
            )

    def close(self) -> None:
        """Give the memory back. No kernel may run any more, on any rank."""
        torch.cuda.synchronize()
        custom_ops.forget(self.handle)
        del self._plain, self._small

    # ---- ops --------------------------------------------------------------------------------------------------------

    def all_reduce(self, x_TH: Tensor) -> Tensor:
        """[T, H] to the sum [T, H]."""
        return self._rows("all_reduce", x_TH)

    def all_reduce_norm(
        self, x_TH: Tensor, residual_TH: Tensor | None, weight_H: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """(norm of sum + residual, sum + residual), both [T, H]."""
        return self._normed_rows("all_reduce", x_TH, residual_TH, weight_H, eps)

    def int8_all_reduce(self, x_TH: Tensor, algorithm: str) -> Tensor:
        """[T, H] to the sum [T, H] of what INT8 leaves of it."""
        return self._rows(f"int8_all_reduce.{algorithm}", x_TH)

    def int8_all_reduce_norm(
        self, x_TH: Tensor, algorithm: str, residual_TH: Tensor | None, weight_H: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """As `all_reduce_norm`, with the sum in INT8."""
        return self._normed_rows(f"int8_all_reduce.{algorithm}", x_TH, residual_TH, weight_H, eps)

    def reduce_scatter(self, x_TH: Tensor) -> Tensor:
        """[T, H] to this rank's [ceil(T / N), H] of the sum; rows beyond T are zero."""
        return self._rows("reduce_scatter", x_TH)

    def reduce_scatter_norm(
        self, x_TH: Tensor, residual_SH: Tensor | None, weight_H: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """(norm of sum + residual, sum + residual) of this rank's shard."""
        return self._normed_rows("reduce_scatter", x_TH, residual_SH, weight_H, eps)

    def all_gather(self, x_SH: Tensor) -> Tensor:
        """[S, H] of each rank to [N * S, H]."""
        return self._rows("all_gather", x_SH)

    def gather_sum(self, x_GH: Tensor, attn_tp: int) -> Tensor:
        """A DP group's partial rows [G, H] to the summed rows of all groups [N / attn_tp * G, H]."""
        return self._rows(f"gather_sum.{attn_tp}", x_GH)

    def scatter_sum(self, x_TH: Tensor, attn_tp: int) -> Tensor:
        """Partial rows of all groups [N / attn_tp * G, H] to the summed rows of this DP group [G, H]."""
        return self._rows(f"scatter_sum.{attn_tp}", x_TH)

    def _rows(self, op: str, x: Tensor) -> Tensor:
        run = custom_ops.rows if torch.compiler.is_compiling() else custom_ops.rows_now
        return run(x, self.handle, op)

    def _normed_rows(
        self, op: str, x: Tensor, residual: Tensor | None, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        run = custom_ops.normed_rows if torch.compiler.is_compiling() else custom_ops.normed_rows_now
        return run(x, residual, weight, eps, self.handle, op)

    # ---- what runs --------------------------------------------------------------------------------------------------

    def rows_out(self, op: str, rows: int) -> int:
        """Rows that come out of an op."""
        call, parameter = _call_of(op)
        return call.rows_out(rows, self.size, parameter)

    def run(self, op: str, x: Tensor, out: Tensor) -> None:
        """One op; `out` has its shape."""
        call, parameter = _call_of(op)
        call.run(self, Task(x, None, None, 0.0, out, out), parameter)

    def run_normed(
        self, op: str, x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, out: Tensor, total: Tensor
    ) -> None:
        """One op with the residual add and the norm that follow."""
        call, parameter = _call_of(op)
        call.run(self, Task(x, residual, weight, eps, out, total), parameter)

    def sum_plainly(self, task: Task, parameter: str) -> None:  # noqa: ARG002
        """The sum of rows as they are; of a short message in one shot."""
        if task.weight is None:
            out = flattened(task.out)
            task = task._replace(x=flattened(task.x), out=out, total=out)
        self._sum(task, False, self._is_short(task.x))

    def sum_int8(self, task: Task, algorithm: str) -> None:
        """The sum of rows in INT8."""
        self._sum(task, True, INT8_ALL_REDUCE.ways[algorithm].peers == "message")

    def _sum(self, task: Task, quantized: bool, in_one_shot: bool) -> None:
        rows, others = task.x.shape[0], self.size - 1
        flags = {**task.flags, "QUANTIZED": quantized, "quantized": quantized}
        if in_one_shot:
            self._launch(one_shot_kernel, rows, others, task.arrays, (), **flags)
        else:
            self._launch(two_shot_kernel, -(-rows // self.size), 2 * others, task.arrays, (rows,), **flags)

    def scatter(self, task: Task, parameter: str) -> None:  # noqa: ARG002
        """This rank's shard of the sum."""
        rows = task.x.shape[0]
        self._launch(reduce_scatter_kernel, task.out.shape[0], self.size - 1, task.arrays, (rows,), **task.flags)

    def gather(self, task: Task, parameter: str) -> None:  # noqa: ARG002
        """All shards."""
        x = flattened(task.x)
        self._exchange(all_gather_kernel, x, flattened(task.out), x.shape[0])

    def gather_sums(self, task: Task, attn_tp: str) -> None:
        """The sums of all DP groups."""
        self._exchange(gather_sum_kernel, task.x, task.out, task.x.shape[0], ATTN_TP=int(attn_tp))

    def scatter_sums(self, task: Task, attn_tp: str) -> None:
        """The sum of this DP group's rows."""
        self._exchange(scatter_sum_kernel, task.x, task.out, task.out.shape[0], ATTN_TP=int(attn_tp))

    def _exchange(self, kernel: Any, x: Tensor, out: Tensor, programs: int, **flags: Any) -> None:
        self._launch(kernel, programs, self.size - 1, (x, out), (), **flags)

    def _launch(
        self, kernel: Any, programs: int, slots: int, arrays: tuple[Tensor, ...], numbers: tuple[int, ...], **flags: Any
    ) -> None:
        space = self._small if flags.get("quantized") else self._plain
        if space is None:
            raise RefusedError(
                "takes a workspace that was not made: no room was asked for", field="rows", value=programs
            )
        width = arrays[0].shape[1]
        ranks: dict[str, Any] = {"RANK": self._group.rank, "WORLD": self.size}
        group: dict[str, Any] = {"state": self._state, "error": self._error, "looks": self.looks}
        launch(kernel, space, programs, slots, arrays, numbers, width=width, **group, **ranks, **flags)

    def _is_short(self, x: Tensor) -> bool:
        return x.numel() * x.element_size() <= one_shot_bytes(self.size)


class Call(NamedTuple):
    """What performs a method of Peers: the rows that come out of some over so many ranks, and the launch."""

    method: str
    rows_out: Callable[[int, int, str], int]
    run: Callable[[PeerKernels, Task, str], None]


_CALLS = (
    Call("all_reduce", lambda rows, size, _: rows, PeerKernels.sum_plainly),  # noqa: ARG005
    Call("int8_all_reduce", lambda rows, size, _: rows, PeerKernels.sum_int8),  # noqa: ARG005
    Call("reduce_scatter", lambda rows, size, _: (rows + size - 1) // size, PeerKernels.scatter),
    Call("all_gather", lambda rows, size, _: rows * size, PeerKernels.gather),
    Call("gather_sum", lambda rows, size, attn_tp: rows * (size // int(attn_tp)), PeerKernels.gather_sums),
    Call("scatter_sum", lambda rows, size, attn_tp: rows // (size // int(attn_tp)), PeerKernels.scatter_sums),
)
_BY_METHOD = {call.method: call for call in _CALLS}


def _call_of(op: str) -> tuple[Call, str]:
    """What performs an op, and its parameter, from `method` or `method.parameter`."""
    method, _, parameter = op.partition(".")
    return _BY_METHOD[method], parameter


def check(group: Group, dtype: torch.dtype, width: int) -> None:
    """Raises RefusedError for what the kernels cannot take."""
    spelled = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, str(dtype))
    reason = KERNEL_LIMITS.refuses(spelled, group.size, width)
    if group.size < 2:
        reason = "its kernels join two ranks at least"
    if reason is not None:
        raise RefusedError(reason, field="impl", value="commplan_triton")


__all__ = ["PeerKernels", "check"]
