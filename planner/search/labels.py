"""The best path through boundaries one by one, where a segment takes the longer of device and host.

Within a segment neither time alone tells which of two paths will be the cheaper one, so both are kept where neither has
both; at its end one is left for each state. `rank` comes before time: fewer changes to a plan, more of its named ops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from ..strategy.layout import State
from ..strategy.ops import Op
from .graph import Boundary, Edge
from .pricing import Pricer, Segment
from .shortest_path import Entry


class Trail(NamedTuple):
    """The edges of a partial path, from the last one back: paths share what they have in common."""

    before: Trail | None
    edge: Edge


class Label(NamedTuple):
    """A partial path: its rank, the weight of its closed segments, those of the open one on device and host."""

    rank: tuple[int, ...]
    closed: int
    device: int
    host: int
    trail: Trail | None


class Option(NamedTuple):
    """An edge that a path may take: what it adds to the rank, its weights on device and host."""

    rank: tuple[int, ...]
    device: int
    host: int
    edge: Edge


Fronts = dict[Entry, list[Label]]
Options = dict[Entry, list[Option]]


def start(ranks: int) -> Fronts:
    """Before embed_out."""
    return {None: [Label((0,) * ranks, 0, 0, 0, None)]}


def undominated(options: Iterable[Option]) -> list[Option]:
    """The options of one boundary and state without those that no path needs: another that leads to the same state is
    no worse in all. The first of equals stays."""
    by_after: dict[State, list[Option]] = {}
    for new in options:
        known = by_after.setdefault(new.edge.after, [])
        if not any(_takes_over(k, new) for k in known):
            known[:] = [k for k in known if not _takes_over(new, k)]
            known.append(new)
    return [option for known in by_after.values() for option in known]


def _takes_over(a: Option, b: Option) -> bool:
    return a.rank < b.rank or (a.rank == b.rank and a.device <= b.device and a.host <= b.host)


def options_of(boundary: Boundary, pricer: Pricer, tokens: int, rank: Callable[[Op], tuple[int, ...]]) -> Options:
    """The options at a boundary by entering state: edges that fit at a token count, without dominated ones."""
    return {
        state: undominated(Option(rank(e.op), device, host, e) for e, device, host in pricer.weights(edges, tokens))
        for state, edges in boundary.items()
    }


def advance(fronts: Fronts, options: Options) -> Fronts:
    """All paths with one edge more, by the options from each state."""
    reached: Fronts = {}
    for state, labels in fronts.items():
        for rank, device, host, edge in options.get(state, ()):
            for label in labels:
                ranks = tuple([a + b for a, b in zip(label.rank, rank, strict=True)])
                taken = Trail(label.trail, edge)
                keep(reached, edge.after, Label(ranks, label.closed, label.device + device, label.host + host, taken))
    return reached


def keep(fronts: Fronts, state: Entry, label: Label) -> None:
    """Add a path to those that end in a state, unless one of them is no worse in all; the first of equals stays."""
    known = fronts.setdefault(state, [])
    for other in known:
        if other.rank < label.rank or (other.rank == label.rank and _no_worse(other, label)):
            return
    known[:] = [k for k in known if not (label.rank < k.rank or (label.rank == k.rank and _no_worse(label, k)))]
    known.append(label)


def _no_worse(a: Label, b: Label) -> bool:
    return a.closed + a.device <= b.closed + b.device and a.closed + a.host <= b.closed + b.host


def close(fronts: Fronts, segment: Segment) -> Fronts:
    """The end of a segment: the cheapest path to each state."""
    result: Fronts = {}
    for state, labels in fronts.items():
        for label in labels:
            weight = label.closed + segment.weight(label.device, label.host)
            keep(result, state, Label(label.rank, weight, 0, 0, label.trail))
    return result


def best(fronts: Fronts) -> tuple[Edge, ...] | None:
    """The edges of the best path, or None where none came through."""
    ends = [label for labels in fronts.values() for label in labels]
    if not ends:
        return None
    trail, edges = min(ends, key=lambda end: (end.rank, end.closed)).trail, list[Edge]()
    while trail is not None:
        trail, edge = trail
        edges.append(edge)
    return tuple(reversed(edges))
