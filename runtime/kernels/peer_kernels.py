"""Our collectives of one group: which kernel performs an op, on which workspace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from commplan.planner.strategy.words import ScaleGroup

from ..errors import BoundaryError, RefusedError
from ..ranks.groups import Group
from . import custom_ops
from .fitting import check_normed, check_rows, check_where, spelled
from .op_launches import OpLaunches, Site, Task
from .peer_impls import KERNEL_LIMITS, Room
from .peers import Make, Peers
from .prepared import Start, dependence_on, prepare
from .pushed import Pushed
from .read_ahead import MOST_ROWS, ahead_of, bytes_ahead, can_ask
from .room import half_bytes, pushed_bytes
from .row_launch import Tuning
from .symmetric import ABSENT_8, ABSENT_16, Workspace, make_workspace

_PUSHED = "all_reduce.pushed"
_MOST_READY = 4096  # shapes that are kept ready


class Ready(NamedTuple):
    """What a call of the same shapes and types does: memory for a result, and the launch."""

    new: Callable[[Tensor], Tensor]
    start: Start


class PeerKernels(Peers):
    """Collectives of a group by Triton kernels over symmetric memory, or memory at another `site`.

    Results are the same bits on every rank, but for the sign of zeros. Calls of a group run on one stream, in the same
    order on all ranks; rows that are pushed travel on one beside it. Once a row has not come, every later result on
    this rank is NaN, and `check` says why; only new Peers help. Workspaces: `plain` for rows of 2-byte elements,
    `small` for rows in INT8, `pushed` with its own; None where no room was asked for. `state`: int64 [1] on the device,
    as in calls.py. `error`: int32 [1] in pinned host memory, 1 from then on.

    A call's shapes and types are checked when they are new, and what they lead to is kept; each call checks the rest.
    """

    are_kernels = True

    def __init__(
        self,
        group: Group,
        plain: Workspace | None,
        small: Workspace | None,
        state: Tensor,
        error: Tensor,
        pushed: Pushed | None = None,
        site: Site = Site(),  # noqa: B008
    ) -> None:
        self._group, self._plain, self._small = group, plain, small
        self._state, self._error = state, error
        self._device_index = state.get_device()
        self._pushed = pushed
        self._name = site.name
        self._dependent = site.dependent or dependence_on(state.device)
        self._launches = OpLaunches(group, plain, small, self._dependent, site)
        said = bytes_ahead()
        self._bytes_ahead = said if can_ask(state.device) else 0
        self._ahead: Tensor | None = None
        self._ready: dict[tuple[Any, ...], Ready] = {}
        self.handle = custom_ops.register(self)

    @classmethod
    def make(cls, group: Group, device: torch.device, dtype: torch.dtype, width: int, room: Room) -> PeerKernels:
        """Every rank of the group must call this, in the same order."""
        check(group, dtype, width)
        state = torch.zeros(1, dtype=torch.int64, device=device)
        error = torch.zeros(1, dtype=torch.int32, device="cpu", pin_memory=True)
        plain, small = half_bytes(group.size, width, room)
        pushed = None
        if room.pushed_rows:
            space = make_workspace(group, device, pushed_bytes(group.size, width, room.pushed_rows), 0, viewed=True)
            uses = torch.zeros(2, dtype=torch.int64, device=device)
            pushed = Pushed(group, space, room.pushed_rows, width, uses, state, error)
        return cls(
            group,
            make_workspace(group, device, plain, ABSENT_16) if plain else None,
            make_workspace(group, device, small, ABSENT_8) if small else None,
            state,
            error,
            pushed,
        )

    @property
    def size(self) -> int:
        """Ranks of the group."""
        return self._group.size

    @property
    def looks(self) -> int:
        """How often a receiver looks for a row before it gives up."""
        return self._launches.looks

    @looks.setter
    def looks(self, looks: int) -> None:
        """Of the calls from now on."""
        self._launches.looks = looks
        self._ready.clear()

    def tune(self, tuning: Tuning) -> None:
        """Let rows lie in programs otherwise, to measure it; on all ranks alike."""
        self._launches.tuning = tuning
        self._ready.clear()

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What calls in here prepare is forgotten behind them. Nothing may be tuned in here."""
        kept, self._ready = self._ready, {}
        try:
            yield
        finally:
            self._ready = kept

    def check(self) -> None:
        """Raises BoundaryError if a kernel has given up waiting for a peer. Costs no synchronisation."""
        if int(self._error[0]):
            raise BoundaryError(
                "a peer has sent nothing for half a minute: its process has ended or hangs", where=self._name
            )

    def close(self) -> None:
        """Give the memory back. No kernel may run any more, on any rank."""
        torch.cuda.synchronize()
        custom_ops.forget(self.handle)
        self._ready.clear()
        self._ahead = None
        del self._launches, self._pushed

    # ---- ops --------------------------------------------------------------------------------------------------------

    def all_reduce(self, x_TH: Tensor, algorithm: str | None = None) -> Tensor:
        """[T, H] to the sum [T, H]."""
        return self._rows("all_reduce" if algorithm is None else f"all_reduce.{algorithm}", x_TH)

    def all_reduce_norm(
        self,
        x_TH: Tensor,
        residual_TH: Tensor | None,
        weight_H: Tensor,
        eps: float,
        algorithm: str | None = None,
        overwrite: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """(norm of sum + residual, sum + residual), both [T, H]."""
        op = "all_reduce" if algorithm is None else f"all_reduce.{algorithm}"
        return self._normed_rows(op, x_TH, residual_TH, weight_H, eps, overwrite)

    def push(self, x_TH: Tensor, half: int | None = None, make: Make | None = None) -> None:
        """Send rows that an all-reduce `pushed` is asked for next, each piece as soon as `make` has filled it."""
        self._has_pushed().push(x_TH, half, make)

    def read_ahead(self, weight: Tensor) -> None:
        """The next sum with a norm asks the cache for some of this weight, which a GEMM reads then."""
        if self._bytes_ahead and weight.device == self._state.device:  # it may be kept on the host
            self._ahead = weight

    def int8_all_reduce(self, x_TH: Tensor, algorithm: str) -> Tensor:
        """[T, H] to the sum [T, H] of what INT8 leaves of it."""
        return self._rows(f"int8_all_reduce.{algorithm}", x_TH)

    def int8_all_reduce_norm(
        self,
        x_TH: Tensor,
        algorithm: str,
        residual_TH: Tensor | None,
        weight_H: Tensor,
        eps: float,
        overwrite: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """As `all_reduce_norm`, with the sum in INT8."""
        return self._normed_rows(f"int8_all_reduce.{algorithm}", x_TH, residual_TH, weight_H, eps, overwrite)

    def quantized_all_reduce(self, x_TH: Tensor, algorithm: str, wire: str, group: ScaleGroup) -> Tensor:
        """[T, H] to the sum [T, H] of what a format with a scale for every `group` columns leaves of it."""
        return self._rows(f"quantized_all_reduce.{algorithm}.{wire}.{group}", x_TH)

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
        """As `all_reduce_norm`, with the sum in such a format."""
        op = f"quantized_all_reduce.{algorithm}.{wire}.{group}"
        return self._normed_rows(op, x_TH, residual_TH, weight_H, eps, overwrite)

    def reduce_scatter(self, x_TH: Tensor) -> Tensor:
        """[T, H] to this rank's [ceil(T / N), H] of the sum; rows beyond T are zero."""
        return self._rows("reduce_scatter", x_TH)

    def reduce_scatter_norm(
        self, x_TH: Tensor, residual_SH: Tensor | None, weight_H: Tensor, eps: float, overwrite: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(norm of sum + residual, sum + residual) of this rank's shard."""
        return self._normed_rows("reduce_scatter", x_TH, residual_SH, weight_H, eps, overwrite)

    def all_gather(self, x_SH: Tensor) -> Tensor:
        """[S, H] of each rank to [N * S, H]."""
        return self._rows("all_gather", x_SH)

    def gather_sum(self, x_GH: Tensor, attn_tp: int, algorithm: str | None = None) -> Tensor:
        """A DP group's partial rows [G, H] to the summed rows of all groups [N / attn_tp * G, H]."""
        return self._rows(f"gather_sum.{_told(attn_tp, algorithm)}", x_GH)

    def scatter_sum(self, x_TH: Tensor, attn_tp: int, algorithm: str | None = None) -> Tensor:
        """Partial rows of all groups [N / attn_tp * G, H] to the summed rows of this DP group [G, H]."""
        return self._rows(f"scatter_sum.{_told(attn_tp, algorithm)}", x_TH)

    def _rows(self, op: str, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling() or type(x) is not Tensor:
            found: Tensor = custom_ops.rows(x, self.handle, op)
            return found
        return self.rows_now(op, x)

    def _normed_rows(
        self, op: str, x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, overwrite: bool
    ) -> tuple[Tensor, Tensor]:
        if torch.compiler.is_compiling() or type(x) is not Tensor:
            found: tuple[Tensor, Tensor] = custom_ops.normed_rows(x, residual, weight, eps, self.handle, op)
            return found
        return self.normed_rows_now(op, x, residual, weight, eps, overwrite)

    # ---- what runs: every line costs each call of an eager forward --------------------------------------------------

    def rows_now(self, op: str, x: Tensor) -> Tensor:
        """One op, at once."""
        ready = self._ready.get((op, x.shape, x.dtype)) or self._prepare(op, x)
        if x.get_device() != self._device_index or not x.is_contiguous():
            check_where(self._state.device, x=x)
        out = ready.new(x)
        ready.start(x, out)
        return out

    def normed_rows_now(
        self, op: str, x: Tensor, residual: Tensor | None, weight: Tensor, eps: float, overwrite: bool = False
    ) -> tuple[Tensor, Tensor]:
        """One op with the residual add and the norm that follow, at once."""
        following, self._ahead = self._ahead, None
        ahead = None
        if following is not None and x.shape[0] <= MOST_ROWS:
            ahead = ahead_of(following, self._bytes_ahead)
        shape = None if residual is None else residual.shape
        key = op, x.shape, x.dtype, shape, weight.shape, weight.dtype, eps, ahead
        ready = self._ready.get(key) or self._prepare_normed(key, x, residual, weight)
        before = x if residual is None else residual
        here = self._device_index
        if (
            x.get_device() != here
            or before.get_device() != here
            or weight.get_device() != here
            or before.dtype is not x.dtype
            or not (x.is_contiguous() and before.is_contiguous() and weight.is_contiguous())
        ):
            check_where(self._state.device, x=x, residual=before, weight=weight)
        out = ready.new(x)
        total = residual if overwrite and residual is not None else ready.new(x)
        ready.start(x, before, weight, out, total)
        return out, total

    # ---- what is settled by shapes and types ------------------------------------------------------------------------

    def rows_out(self, op: str, rows: int) -> int:
        """Rows that come out of an op."""
        return self._launches.rows_out(op, rows)

    def _prepare(self, op: str, x: Tensor) -> Ready:
        check_rows(x)
        rows, width = x.shape
        return self._keep((op, x.shape, x.dtype), Task(rows, width, self.rows_out(op, rows)))

    def _prepare_normed(self, key: tuple[Any, ...], x: Tensor, residual: Tensor | None, weight: Tensor) -> Ready:
        op, (eps, ahead) = key[0], key[-2:]
        check_rows(x)
        rows, width = x.shape
        rows_out = self.rows_out(op, rows)
        check_normed(x, rows_out, residual, weight)
        return self._keep(key, Task(rows, width, rows_out, True, residual is not None, eps, ahead))

    def _keep(self, key: tuple[Any, ...], task: Task) -> Ready:
        new = custom_ops.new_rows(task.rows, task.rows_out, task.width)
        if not task.rows:
            return Ready(new, lambda *_: None)
        start = self._start_pushed(task) if key[0] == _PUSHED else self._start(key[0], task)
        if len(self._ready) >= _MOST_READY:
            self._ready.clear()
        ready = self._ready[key] = Ready(new, start)
        return ready

    def _start(self, op: str, task: Task) -> Start:
        launch, peers = self._launches.of(op, task)
        return prepare(launch, (peers, self._state, self._error))

    def _start_pushed(self, task: Task) -> Start:
        return self._has_pushed().prepare(task, self._dependent, self.looks)

    def _has_pushed(self) -> Pushed:
        if self._pushed is None:
            raise RefusedError("has no room in these Peers", field="algorithm", value="pushed")
        return self._pushed


def _told(attn_tp: int, algorithm: str | None) -> str:
    """What a pair is told: the size of a DP group, and how it is done where that is said."""
    return f"{attn_tp}" if algorithm is None else f"{attn_tp}.{algorithm}"


def check(group: Group, dtype: torch.dtype, width: int) -> None:
    """Raises RefusedError for what the kernels cannot take."""
    reason = KERNEL_LIMITS.refuses(spelled(dtype), group.size, width)
    if group.size < 2:
        reason = "its kernels join two ranks at least"
    if reason is not None:
        raise RefusedError(reason, field="impl", value="commplan_triton")


__all__ = ["PeerKernels", "check"]
