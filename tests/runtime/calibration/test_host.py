"""The host's part is timed within a layer of modules, with as many launches as are counted here."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from commplan.runtime.calibration.host import LAUNCHES, HostTimer, StandInLayer
from commplan.runtime.calibration.timing import Timer, no_gradients
from commplan.runtime.ranks.groups import Group

VIEWS = {"t", "view", "transpose", "slice", "_unsafe_view", "expand", "unsqueeze"}


class Counted(TorchDispatchMode):
    """Ops that launch a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.launches += func._schema.name.split("::")[1] not in VIEWS
        return func(*args, **(kwargs or {}))


def host_timer() -> HostTimer:
    device = torch.device("cpu")
    return HostTimer(device, Timer(device, Group("tp", None, 1, 0)))


def test_a_stand_in_layer_launches_as_many_kernels_as_its_time_is_divided_by() -> None:
    x, angles = torch.randn(4, 64).bfloat16(), torch.randn(4, 16).bfloat16()
    layer = StandInLayer().bfloat16()
    with torch.no_grad(), Counted() as counted:
        layer(x, angles, angles, None)
    assert counted.launches == LAUNCHES


def test_a_call_is_timed_without_the_layer_around_it() -> None:
    """A call that sleeps for 10 ms takes that, whatever a layer takes."""
    calls = 0

    def slow() -> None:
        nonlocal calls
        calls += 1
        time.sleep(0.01)

    with no_gradients():
        found = host_timer().calls(slow, 3)
    assert calls == 2 * 20 * 4  # twice in each of 20 layers; a warm-up and three samples
    assert 3_000 < median(found) < 200_000  # a layer takes fractions of a millisecond, on a busy machine some


def test_a_layer_without_a_call_calls_nothing() -> None:
    with no_gradients():
        assert min(host_timer().launches(3)) > 0
    forward: Callable[..., Any] = StandInLayer().forward
    assert forward(torch.randn(4, 64), torch.randn(4, 16), torch.randn(4, 16), None).shape == (4, 64)
