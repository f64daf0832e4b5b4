"""What stands in for ranks within the test process: one rank runs here, measurements are made up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from commplan.planner.strategy.file import walk
from commplan.runtime.bound import host
from commplan.runtime.ranks import spawning


@contextmanager
def without_machines() -> Iterator[None]:
    """`run_ranks` without processes, on a host that has what they need."""
    with patch.object(spawning, "run_ranks", _in_this_process), patch.object(host, "check_host"):
        yield


def _in_this_process(function: Callable[..., Any], nproc: int, *args: Any, timeout_s: float = 0.0) -> list[Any]:
    if function.__name__ == "measure_rank":
        points = args[0]
        samples = {" ".join(map(str, point)): [3.0, 3.1, 2.9] for point in points}
        return [
            {
                "machine": {"ranks": str(nproc), "device": "made up", "torch": "2", "backend": args[1]},
                "samples": samples,
                "host": {"launch": [20.0, 21.0, 19.0]},
            }
        ] * nproc
    if function.__name__ == "measure_plans":
        found = [_made_up(case, rounds=args[1]) for case in args[0]]
        return [{"cases": found, "machine": {}}] * nproc
    assert nproc == 1, f"{function.__name__} on {nproc} ranks"
    return [function(*args)]


def _made_up(case: Any, rounds: int) -> dict[str, Any]:
    """Every distinct boundary of every plan at 10 us."""
    found: dict[str, Any] = {}
    for name, strategy in case.plans.items():
        keys = {}
        for _, boundary, op, before, after in walk(strategy, strategy.modes[case.mode][0]):
            if boundary != "head_in" and op.name != "fused":
                keys[boundary, str(replace(op, producer=None)), str(before), str(after)] = [10.0] * rounds
        found[name] = keys
    return found
