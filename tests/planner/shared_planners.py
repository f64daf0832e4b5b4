"""Planners of shipped deployments, made once in a test process: a planner only remembers what it has worked out.

A test that asks for thousands of token counts makes one of its own, since memory is never given back.
"""

from __future__ import annotations

from functools import cache

from commplan.planner.descriptions.loader import load_setup
from commplan.planner.descriptions.setup import Setup
from commplan.planner.search.planning import ModePlanner
from commplan.planner.search.ranges import PlannedRange


@cache
def setup_of(deployment: str) -> Setup:
    return load_setup(deployment)


@cache
def planner_of(deployment: str, mode: str) -> ModePlanner:
    return ModePlanner(setup_of(deployment), mode)


@cache
def ranges_of(deployment: str, mode: str) -> tuple[PlannedRange, ...]:
    return tuple(planner_of(deployment, mode).ranges())
