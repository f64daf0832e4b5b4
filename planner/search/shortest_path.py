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
    """The path of least per_weight * weight + per_error * error through the stages, or None. The first of equals.

    Many layers in a row offer the same steps. Once one of them adds the same to every state, so do those behind it.
    """
    best: dict[Entry, int] = {None: 0}
    trail: list[dict[Entry, tuple[Entry, Step]]] = []
    reduced: dict[int, dict[Entry, list[tuple[Entry, int, Step]]]] = {}
    previous: Steps | None = None
    same: tuple[int, dict[Entry, tuple[Entry, Step]]] | None = None  # what such a layer adds, and how it is reached
    for steps in stages:
        if steps is previous and same is not None:
            best = {state: cost + same[0] for state, cost in best.items()}
            trail.append(same[1])
            continue
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
        same = _same_again(best, reached, came) if steps is previous else None
        best, previous = reached, steps
        trail.append(came)
    if not best:
        return None
    state: Entry = min(best, key=lambda s: best[s])
    path = []
    for came in reversed(trail):
        state, step = came[state]
        path.append(step)
    return path[::-1]


def _same_again(
    best: dict[Entry, int], reached: dict[Entry, int], came: dict[Entry, tuple[Entry, Step]]
) -> tuple[int, dict[Entry, tuple[Entry, Step]]] | None:
    """What was added to every state, and how each was reached; None where states differ. Their order decides ties."""
    if not best or list(best) != list(reached):
        return None
    added = {reached[state] - cost for state, cost in best.items()}
    return (added.pop(), came) if len(added) == 1 else None


def _least(options: list[Step], per_weight: int, per_error: int) -> tuple[int, Step]:
    best = options[0]
    cost = best[0] * per_weight + best[1] * per_error
    for step in options:
        other = step[0] * per_weight + step[1] * per_error
        if other < cost:
            best, cost = step, other
    return cost, best
