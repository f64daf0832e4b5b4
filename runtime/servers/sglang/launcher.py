"""Hooks of the process that starts the others: refuse early, and make sure that every scheduler runs the plan."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from commplan.planner.strategy.file import StrategyFile, plan_hash

from ...errors import RefusedError
from ..stop import or_stop, stop
from .scheduler import check_server

Hook = Callable[..., Any]


class LauncherHooks:
    """All hooks of the launching process for one plan."""

    def __init__(self, file: StrategyFile, path: str) -> None:
        self.file, self.path, self.hash = file, path, plan_hash(file)

    def table(self) -> dict[str, Hook]:
        """Dotted path of a function of SGLang's -> the hook around it."""
        return {
            "sglang.srt.server_args.ServerArgs.check_server_args": self.around_check,
            "sglang.srt.entrypoints.engine.Engine._launch_subprocesses": self.around_launch,
        }

    def around_check(self, check: Hook, server_args: Any) -> None:
        """ServerArgs.check_server_args, called on resolved arguments before any process is started."""
        or_stop(check_server, self.file, self.path, server_args)
        check(server_args)

    def around_launch(self, launch: Hook, *args: Any, **options: Any) -> Any:
        """Engine._launch_subprocesses: every scheduler must have told the hash of the plan that it runs."""
        launched = launch(*args, **options)
        infos = next(part.scheduler_infos for part in launched if hasattr(part, "scheduler_infos"))
        told = [found for info in infos or [] for found in _told(info)]
        if any(found != self.hash for found in told):
            self._end(told)
        return launched

    def _end(self, told: list[Any]) -> None:
        from sglang.srt.utils import kill_process_tree

        kill_process_tree(os.getpid(), include_parent=False)
        listing = ", ".join(str(found) for found in told)
        stop(RefusedError(f"a scheduler does not run the plan {self.hash}; they run: {listing}", file=self.path))


def _told(info: dict[str, Any]) -> list[Any]:
    """The hashes of a scheduler, or of all those behind a controller of DP groups."""
    return info["commplan_groups"] if "commplan_groups" in info else [info.get("commplan")]


class ControllerHooks:
    """Hooks of the process that stands between launcher and schedulers where there are DP groups."""

    def table(self) -> dict[str, Hook]:
        """Dotted path of a function of SGLang's -> the hook around it."""
        controller = "sglang.srt.managers.data_parallel_controller.DataParallelController"
        return {f"{controller}.get_init_info": self.around_init_info}

    def around_init_info(self, get_init_info: Hook, controller: Any) -> Any:
        """DataParallelController.get_init_info drops what schedulers say beyond what it knows; ours goes on."""
        told = [info.get("commplan") for info in controller._scheduler_init_infos]
        return {**get_init_info(controller), "commplan_groups": told}
