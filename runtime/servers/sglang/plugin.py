"""What SGLang calls first in each of its processes: the entry point of group `sglang.srt.plugins`."""

from __future__ import annotations

import multiprocessing
import os
import sys
from importlib.metadata import version

from ..stop import or_stop, stop
from .words import STRATEGY_VARIABLE


def register() -> None:
    """Place the hooks that this process needs. Does nothing unless COMMPLAN_STRATEGY names a strategy file."""
    path = os.environ.get(STRATEGY_VARIABLE, "")
    if path:
        or_stop(_register, path)


def _register(path: str) -> None:
    from commplan.planner.strategy.file import CommplanError

    from .server_fit import check_version, load_runnable

    check_version(version("sglang"))
    file = load_runnable(path)
    try:
        tables = []
        # The launcher is whoever has no parent that SGLang started, or has the engine loaded; a scheduler process has
        # the module of its entry point loaded. The detokenizer is neither, and imports no model for us.
        if multiprocessing.parent_process() is None or "sglang.srt.entrypoints.engine" in sys.modules:
            from .launcher import LauncherHooks

            tables.append(LauncherHooks(file, path).table())
        if "sglang.srt.managers.data_parallel_controller" in sys.modules and file.parallelism.attn_dp > 1:
            from .launcher import ControllerHooks

            tables.append(ControllerHooks().table())
        if "sglang.srt.managers.scheduler" in sys.modules:
            from .scheduler import SchedulerHooks

            tables.append(SchedulerHooks(file, path).table())
        _place(tables)
    except CommplanError:
        raise
    except Exception as error:  # SGLang would log it and serve without the plan
        stop(CommplanError(f"the plugin does not work with this SGLang: {error!r}", kind="plugin", file=path))


def _place(tables: list) -> None:  # type: ignore[type-arg]
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    for table in tables:
        for target, hook in table.items():
            HookRegistry.register(target, hook, HookType.AROUND)
