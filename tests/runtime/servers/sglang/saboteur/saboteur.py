"""A plugin for SGLang that breaks commplan's in scheduler processes, as SABOTAGE says. Test equipment.

hook   one hook fails to be placed, which SGLang logs before it goes on
plan   one scheduler of the two finds another plan, named by SABOTAGE_PLAN
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any


def register() -> None:
    """Called by SGLang in each of its processes, before commplan's plugin."""
    if "sglang.srt.managers.scheduler" not in sys.modules:
        return
    if os.environ["SABOTAGE"] == "hook":
        _lose_a_hook()
    elif _first():
        os.environ["COMMPLAN_STRATEGY"] = os.environ["SABOTAGE_PLAN"]


def _lose_a_hook() -> None:
    from sglang.srt.plugins.hook_registry import HookRegistry

    place = HookRegistry._apply_target

    def failing(target: str, hooks: list[Any]) -> None:
        if target.endswith(("stage_facts", "ExitPolicy._decide")):
            raise AttributeError("moved elsewhere")
        place(target, hooks)

    HookRegistry._apply_target = staticmethod(failing)


def _first() -> bool:
    try:
        Path("first-scheduler").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
