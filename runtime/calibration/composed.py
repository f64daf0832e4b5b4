"""Measuring sums around whole messages: points whose kind is a composed impl, each timed as a whole.

kind   composed | composed_norm | host_staged | host_staged_norm
name   what it is told: int8_all_reduce.gather.4, quantized_all_reduce.two_shot.int6.64.2, all_reduce.gather.2;
       all_reduce.one_shot.1 is one kernel through host memory
rows   of each rank's message
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from commplan.planner.strategy.composed_points import parse_point

from ..backends import Backend
from ..kernels.peer_impls import CAN
from ..ranks.groups import Group
from .point_calls import PlainNorm, Point, random_rows


def is_composed(point: Point) -> bool:
    """Is this a sum around whole messages?"""
    return point.kind in CAN.impls and CAN.impls[point.kind].is_composed


def composed_call(
    point: Point, backend: Backend, groups: dict[int, Group], device: torch.device, carrier: Any = None
) -> Callable[[], Any]:
    """The call that a point stands for, with its inputs made. `carrier`: of its messages, where that is no library, or
    what sums them in one launch."""
    op, made = parse_point(point.name, point.kind), carrier
    if not op.way.in_one_launch:
        sums = import_module("commplan.runtime.collectives.wire_sums")  # loaded where there is something to measure
        by = {} if carrier is None else {"carrier": carrier}
        made = sums.WireSum(backend, groups[point.group_size], op.wire, point.width, op.algorithm, op.pieces or 1, **by)
    x = random_rows(point.rows, point, device)
    if not CAN.impls[point.kind].fuses_norm:
        return lambda: made.sum(x)
    norm, residual = PlainNorm(point.width, x.dtype, device), torch.randn_like(x)
    return lambda: made.sum_norm(x, residual, norm.weight, norm.variance_epsilon)
