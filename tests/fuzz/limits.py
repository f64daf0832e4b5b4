"""Limits on a case: the time that it takes of a core, whatever else the machine does, or waits."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

CPU_S, CLOCK_S = 10.0, 120.0


class TooLongError(BaseException):
    """A case took longer than it may. No Exception: nothing that a command catches."""


@contextmanager
def at_most(cpu_s: float, clock_s: float) -> Iterator[None]:
    """Raise TooLongError in the block once one of the two is over."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLongError

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, cpu_s), signal.SIGALRM: (signal.ITIMER_REAL, clock_s)}
    before = {number: signal.signal(number, stop) for number in timers}
    try:
        for timer, seconds in timers.values():
            signal.setitimer(timer, seconds)
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])
