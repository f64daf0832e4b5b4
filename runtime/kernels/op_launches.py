"""Which kernel performs an op on rows of some shape, on which workspace, and with what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from commplan.planner.strategy.file import KINDS

from ..errors import RefusedError
from ..ranks.groups import Group
from .all_gather import all_gather_kernel
from .mixed_comm import gather_sum_kernel, scatter_sum_kernel
from .mixed_comm_two_shot import gather_sum_in_two_kernel, scatter_sum_in_two_kernel
from .one_shot import one_shot_kernel
from .peer_impls import KERNEL_GROUPS, KERNEL_WIRES
from .read_ahead import NOTHING, Ahead
from .reduce_scatter import reduce_scatter_kernel
from .room import layout_of, one_shot_bytes
from .row_launch import Dependence, Launch, Tuning, in_pieces, plan_launch
from .symmetric import Workspace
from .two_shot import two_shot_kernel
from .wire.layout import RowLayout

_LOOKS = 1 << 26  # about half a microsecond each: half a minute


class Site(NamedTuple):
    """Where the rows of a group's kernels land, and what follows from it; as it stands, in symmetric memory.

    name        what an error calls it
    dependent   how kernels depend on the one before; None: as kernels/prepared.py has it
    looks       how often a receiver looks for a row before it gives up
    host_width  in memory of the host, which has places for rows of this width: a sum in one shot tells its rows there
                (staged/one_shot.py), and nothing else runs
    """

    name: str = "commplan_triton"
    dependent: Dependence | None = None
    looks: int = _LOOKS
    host_width: int | None = None


class Task(NamedTuple):
    """The shapes that an op works on, and what follows the sum; without a norm `eps` is nothing."""

    rows: int
    width: int
    rows_out: int
    norm: bool = False
    residual: bool = False
    eps: float = 0.0
    ahead: Ahead | None = None
    """The weights that are read next, if some are to be asked for."""

    @property
    def flags(self) -> dict[str, Any]:
        """For a kernel."""
        return {"NORM": self.norm, "RESIDUAL": self.residual, "eps": (self.eps,)}


class OpLaunches:
    """The launches of a group. Workspaces are as those of PeerKernels.

    `looks`: how often a receiver looks for a row before it gives up; `tuning`: how rows lie in programs.
    """

    def __init__(
        self, group: Group, plain: Workspace | None, small: Workspace | None, dependent: Dependence, site: Site
    ) -> None:
        self._group, self._plain, self._small, self._dependent = group, plain, small, dependent
        self._size = group.size
        self.looks, self._host_width = site.looks, site.host_width
        self.tuning = Tuning()

    def rows_out(self, op: str, rows: int) -> int:
        """Rows that come out of an op."""
        call, parameter = _call_of(op)
        return call.rows_out(rows, self._size, parameter)

    def of(self, op: str, task: Task) -> tuple[Launch, Tensor]:
        """What an op launches, and the addresses of the workspace that it uses."""
        call, parameter = _call_of(op)
        launch = call.plan(self, task, parameter)
        space = self._small if launch.constants.get("LAYOUT") else self._plain
        assert space is not None
        return launch, space.peers

    def plan_sum(self, task: Task, algorithm: str) -> Launch:
        """The sum of rows as they are; where nobody says how, of a short message in one shot."""
        if self._host_width is not None and algorithm == "one_shot":
            return self._plan_told(task)
        short = 2 * task.rows * task.width <= one_shot_bytes(self._size)
        in_one_shot = _whole("all_reduce", algorithm) if algorithm else short
        if not task.norm:
            rows, width = in_pieces(task.rows, task.width, self.tuning)
            task = task._replace(rows=rows, width=width)
        return self._plan_sum(task, None, in_one_shot)

    def _plan_told(self, task: Task) -> Launch:
        """The sum in one shot, over host memory."""
        from .staged.one_shot import MOST_ROWS, host_one_shot_kernel, record_bytes

        assert self._plain is not None
        if task.width != self._host_width:
            raise RefusedError(f"is for rows of {self._host_width} elements", field="width", value=task.width)
        record, others = record_bytes(task.width), self._size - 1
        place = self._plain.half_bytes // others // record * record
        most = min(MOST_ROWS, place // record)
        if task.rows > most:
            raise RefusedError(f"has places for {most} rows; it was made for fewer rows", field="rows", value=task.rows)
        numbers = record, place
        return self._plan(
            host_one_shot_kernel, task.width, task.rows, others, numbers, counts_threads=True, **task.flags
        )

    def plan_int8_sum(self, task: Task, algorithm: str) -> Launch:
        """The sum of rows in INT8."""
        return self._plan_sum(task, layout_of(task.width, "int8", "token"), _whole("int8_all_reduce", algorithm))

    def plan_quantized_sum(self, task: Task, parameter: str) -> Launch:
        """The sum of rows in another format: of `algorithm.wire.group`."""
        algorithm, wire, group = parameter.split(".")
        if wire not in KERNEL_WIRES or group not in KERNEL_GROUPS:
            known = f"{' and '.join(KERNEL_WIRES)} with a scale for {', '.join(KERNEL_GROUPS)} columns"
            raise RefusedError(f"kernels of ours send {known}", field="wire", value=f"{wire}, {group}")
        return self._plan_sum(task, layout_of(task.width, wire, group), _whole("quantized_all_reduce", algorithm))

    def _plan_sum(self, task: Task, layout: RowLayout | None, in_one_shot: bool) -> Launch:
        rows, others = task.rows, self._size - 1
        flags = {**task.flags, "LAYOUT": layout, "layout": layout}
        if in_one_shot:
            return self._plan(one_shot_kernel, task.width, rows, others, (), ahead=task.ahead or NOTHING, **flags)
        return self._plan(two_shot_kernel, task.width, -(-rows // self._size), 2 * others, (rows,), **flags)

    def plan_scatter(self, task: Task, parameter: str) -> Launch:  # noqa: ARG002
        """This rank's shard of the sum."""
        return self._plan(reduce_scatter_kernel, task.width, task.rows_out, self._size - 1, (task.rows,), **task.flags)

    def plan_gather(self, task: Task, parameter: str) -> Launch:  # noqa: ARG002
        """All shards."""
        rows, width = in_pieces(task.rows, task.width, self.tuning)
        return self._plan(all_gather_kernel, width, rows, self._size - 1, (), arrays=2)

    def plan_gather_sums(self, task: Task, parameter: str) -> Launch:
        """The sums of all DP groups: of `attn_tp` or `attn_tp.algorithm`."""
        return self._plan_pair(gather_sum_kernel, gather_sum_in_two_kernel, task.rows, task.width, parameter)

    def plan_scatter_sums(self, task: Task, parameter: str) -> Launch:
        """The sum of this DP group's rows, as told likewise."""
        return self._plan_pair(scatter_sum_kernel, scatter_sum_in_two_kernel, task.rows_out, task.width, parameter)

    def _plan_pair(self, in_one: Any, in_two: Any, group_rows: int, width: int, parameter: str) -> Launch:
        """On rows of a DP group. One row has no shards."""
        attn_tp, algorithm = _attn_tp(parameter), parameter.partition(".")[2]
        short = 2 * group_rows * width <= one_shot_bytes(self._size)
        rows, width = in_pieces(group_rows, width, self.tuning)
        if rows == 1 or (algorithm == "one_shot" if algorithm else short):
            return self._plan(in_one, width, rows, self._size - 1, (), arrays=2, ATTN_TP=attn_tp)
        slots, shard = self._size + attn_tp - 2, -(-rows // attn_tp)
        return self._plan(in_two, width, shard, slots, (rows,), arrays=2, ATTN_TP=attn_tp)

    def _plan(
        self, kernel: Any, width: int, programs: int, slots: int, numbers: tuple[int, ...], **flags: Any
    ) -> Launch:
        space = self._small if flags.get("layout") else self._plain
        if self._host_width is not None and not flags.get("counts_threads"):
            raise RefusedError("host memory is for sums of rows as they are, in one shot", field="op")
        if space is None:
            raise RefusedError(
                "takes a workspace that was not made: no room was asked for", field="rows", value=programs
            )
        group: dict[str, Any] = {"looks": self.looks, "dependent": self._dependent, "tuning": self.tuning}
        group |= {"RANK": self._group.rank, "WORLD": self._size}
        return plan_launch(kernel, space, programs, slots, numbers, width=width, **group, **flags)


class Call(NamedTuple):
    """What performs a method of Peers: the rows that come out of some over so many ranks, and the launch of shapes."""

    method: str
    rows_out: Callable[[int, int, str], int]
    plan: Callable[[OpLaunches, Task, str], Launch]


_CALLS = (
    Call("all_reduce", lambda rows, size, _: rows, OpLaunches.plan_sum),  # noqa: ARG005
    Call("int8_all_reduce", lambda rows, size, _: rows, OpLaunches.plan_int8_sum),  # noqa: ARG005
    Call("quantized_all_reduce", lambda rows, size, _: rows, OpLaunches.plan_quantized_sum),  # noqa: ARG005
    Call("reduce_scatter", lambda rows, size, _: (rows + size - 1) // size, OpLaunches.plan_scatter),
    Call("all_gather", lambda rows, size, _: rows * size, OpLaunches.plan_gather),
    Call("gather_sum", lambda rows, size, told: rows * (size // _attn_tp(told)), OpLaunches.plan_gather_sums),
    Call("scatter_sum", lambda rows, size, told: rows // (size // _attn_tp(told)), OpLaunches.plan_scatter_sums),
)
_BY_METHOD = {call.method: call for call in _CALLS}


def _attn_tp(parameter: str) -> int:
    """Of `attn_tp` or `attn_tp.algorithm`."""
    return int(parameter.partition(".")[0])


def _whole(method: str, algorithm: str) -> bool:
    """Does every rank send its whole message to every other?"""
    kind = next(
        kind
        for kind in KINDS.values()
        if kind.name == method or (kind.kernel is not None and kind.kernel.call == method)
    )
    return kind.way(algorithm).peers == "message"


def _call_of(op: str) -> tuple[Call, str]:
    """What performs an op, and its parameter, from `method` or `method.parameter`."""
    method, _, parameter = op.partition(".")
    return _BY_METHOD[method], parameter
