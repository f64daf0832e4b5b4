"""Stages of a forward, and the shortest path through them."""

from __future__ import annotations

from typing import NamedTuple

from ..strategy.layout import State
from .graph import Edge


class Step(NamedTuple):
    """A way through a stage: weight, squared error (weighted), and the edges it takes."""

    weight: int
    error: int
    edges: tuple[Edge, ...]


Entry = State | None  # None: before embed_out
Steps = dict[Entry, dict[Entry, list[Step]]]  # entering state -> leaving state -> non-dominated steps


def cheapest_path(stages: list[Steps], per_weight: int = 1, per_error: int = 0) -> list[Step] | None:
    """The path of least per_weight * weight + per_error * error through the stages, or None. The first of equals."""
    best: dict[Entry, int] = {None: 0}
    trail: list[dict[Entry, tuple[Entry, Step]]] = []
    reduced: dict[int, dict[Entry, list[tuple[Entry, int, Step]]]] = {}
    for steps in stages:
        least = reduced.get(id(steps))
        if least is None:
            least = reduced[id(steps)] = {
                before: [(after, *_least(options, per_weight, per_error)) for after, options in by_after.items()]
                for before, by_after in steps.items()
            }
        reached: dict[Entry, int] = {}
        came: dict[Entry, tuple[Entry, Step]] = {}
        for before, so_far in best.items():
            for after, cost, step in least.get(before, ()):
                total = so_far + cost
                if after not in reached or total < reached[after]:
                    reached[after] = total
                    came[after] = (before, step)
        best = reached
        trail.append(came)
    if not best:
        return None
    state: Entry = min(best, key=lambda s: best[s])
    path = []
    for came in reversed(trail):
        state, step = came[state]
        path.append(step)
    return path[::-1]


def _least(options: list[Step], per_weight: int, per_error: int) -> tuple[int, Step]:
    best = options[0]
    cost = best[0] * per_weight + best[1] * per_error
    for step in options:
        other = step[0] * per_weight + step[1] * per_error
        if other < cost:
            best, cost = step, other
    return cost, best
