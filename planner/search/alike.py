"""The cheapest path within a budget where most stages are alike: a run of layers that offer the same steps.

In such a run it only counts how often each step is taken. A step that leaves a state as it was, a *loop*, may be moved
to any layer in which the path is in that state, so the two loops that cost least are left out of the labels: a label is
the walk of all other steps, at most as long as the run, and its end is reckoned by how many of the layers left take the
one loop and how many the other. Most walks that a bound does not drop have few steps. The bound is that of the
label-setting in `error_budget`, with the steps of the run priced by what they cost more than the cheapest cycle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from .shortest_path import Entry, Step, Steps

_FEWEST = 6  # layers alike that are worth it
_MOST_AROUND = 6  # other stages before and behind them


class Way(NamedTuple):
    """A partial path outside of the run: its sums, and its steps."""

    weight: int
    error: int
    steps: tuple[Step, ...]


class _Loop(NamedTuple):
    """A step that leaves its state as it was."""

    state: Entry
    step: Step


_Walk = tuple[int, int, int]  # a path without the two loops: weight, error, cost over that of as many cheapest cycles
_Key = tuple[Entry, bool, bool]  # the state a walk is in, and whether it has seen that of each of the two loops
_Walks = dict[_Key, list[_Walk]]
_T = TypeVar("_T", bound=tuple[Any, ...])


class _End(NamedTuple):
    """A walk as it leaves the run: how many steps it has taken, what follows, and how many of the layers left take the
    second loop."""

    taken: int
    key: _Key
    walk: _Walk
    suffix: Way
    second: int


_Counted = dict[tuple[Entry, Entry], list[Step]]  # the steps that a walk takes, by their two states


class Run(NamedTuple):
    """Stages [first, first + length) are alike."""

    first: int
    length: int


def longest_run(stages: list[Steps]) -> Run | None:
    """The longest run of stages that offer the same weights and errors; None if it leaves too many others."""
    keys = kinds_of(stages)
    runs, first = [], 0
    for _, group in groupby(keys):
        length = sum(1 for _ in group)
        runs.append(Run(first, length))
        first += length
    longest = max(runs, key=lambda run: run.length)
    fewest = max(_FEWEST, len(stages[longest.first]) + 1)  # so long that a path comes to a state again
    fits = longest.length >= fewest and len(stages) - longest.length <= _MOST_AROUND
    return longest if fits else None


def kinds_of(stages: list[Steps]) -> list[int]:
    """A number for every stage, the same for those that offer the same weights and errors."""
    numbers: dict[object, int] = {}
    by_id: dict[int, int] = {}
    for steps in stages:
        if id(steps) not in by_id:
            key = tuple(
                (before, after, tuple(step[:2] for step in options))
                for before, by_after in steps.items()
                for after, options in by_after.items()
            )
            by_id[id(steps)] = numbers.setdefault(key, len(numbers))
    return [by_id[id(steps)] for steps in stages]


def front(ways: Iterable[Way]) -> list[Way]:
    """Those that no other is as good as in weight and error; the first of equals."""
    return _falling(sorted(ways, key=itemgetter(0, 1)))


def undominated(walks: set[_Walk]) -> list[_Walk]:
    """By rising weight and falling error."""
    return _falling(sorted(walks))


def _falling(ordered: list[_T]) -> list[_T]:
    """Of partial paths by rising weight those that have less error than all before."""
    kept: list[_T] = []
    for each in ordered:
        if not kept or each[1] < kept[-1][1]:
            kept.append(each)
    return kept


class AlikeLayers:
    """The search over one run, from the `prefixes` that lead to it by state. `ceiling`: the weight to stay below, or to
    equal with an error below the budget."""

    def __init__(
        self,
        stages: list[Steps],
        run: Run,
        prefixes: dict[Entry, list[Way]],
        per: tuple[int, int],
        budget: int,
        ceiling: int,
    ) -> None:
        self._layer = stages[run.first]
        self._stages, self._run = stages, run
        self._order = _order_of_states(stages, run)
        self._per, self._budget, self._ceiling = per, budget, ceiling
        self._prefixes = prefixes
        self._suffixes = _suffixes(stages[run.first + run.length :])
        self._least = {
            (before, after): min(self._cost(step) for step in options)
            for before, by_after in self._layer.items()
            for after, options in by_after.items()
        }
        self._cycle = _cheapest_cycle(self._least, len(self._layer))
        self._to_end = self._costs_to_end()
        self._loops = self._two_loops()
        self._others = self._without_loops()
        self._levels: list[_Walks] = []

    def path(self) -> list[Step] | None:
        """The path of least weight, then of least error, within the budget and the ceiling; None if there is none."""
        walks: _Walks = {}
        for state, ways in [(state, ways) for state, ways in self._prefixes.items() if ways]:
            walks[self._seen((state, False, False))] = [(w, e, self._cost((w, e))) for w, e, _ in ways]
        best: tuple[int, int] | None = None
        ends: list[_End] = []
        for taken in range(self._run.length + 1):
            self._levels.append(walks)
            for key, labels in walks.items():
                for suffix in self._suffixes.get(key[0], ()):
                    for walk, sums, second in self._ended(labels, key, suffix, self._run.length - taken):
                        if self._better(sums, best):
                            best, ends = sums, []
                            self._ceiling = min(self._ceiling, sums[0])
                        if sums == best:
                            ends.append(_End(taken, key, walk, suffix, second))
            if taken < self._run.length:
                walks = self._advanced(walks)
            if not walks:
                break
        return min([self._traced(end) for end in ends], key=self._preferred, default=None)

    def _preferred(self, path: list[Step]) -> list[tuple[int, int]]:
        """Of equal paths the one with the heaviest steps last, as the label-setting has it."""
        numbers = {state: number for number, state in enumerate(self._order)}
        run = path[self._run.first : self._run.first + self._run.length]
        before = [numbers[(path[i - 1].edges[-1].after)] for i in range(self._run.first, self._run.first + len(run))]
        return [(number, -step.weight) for number, step in zip(reversed(before), reversed(run), strict=True)]

    # ---- bounds -----------------------------------------------------------------------------------------------------

    def _cost(self, step: Step | tuple[int, int]) -> int:
        return step[0] * self._per[0] + step[1] * self._per[1]

    def _costs_to_end(self) -> dict[Entry, int]:
        """The least cost from a state of the run to the end, over as many cheapest cycles."""
        found = {state: min(self._cost(way[:2]) for way in ways) for state, ways in self._suffixes.items()}
        for _ in self._layer:
            for (before, after), cost in self._least.items():
                if after in found:
                    extra = cost - self._cycle + found[after]
                    found[before] = min(found.get(before, extra), extra)
        return found

    def _two_loops(self) -> list[_Loop]:
        """The loop of least cost, and the next one of less weight or less error; by rising weight."""
        loops = [
            _Loop(before, step)
            for before, by_after in self._layer.items()
            for after, options in by_after.items()
            for step in options
            if after == before
        ]
        loops.sort(key=lambda loop: (self._cost(loop.step), loop.step.weight))
        for other in sorted(loops[1:], key=lambda loop: (self._cost(loop.step), -loop.step.weight)):
            lighter, heavier = sorted((loops[0], other), key=lambda loop: loop.step.weight)
            if lighter.step.weight < heavier.step.weight and lighter.step.error > heavier.step.error:
                return [lighter, heavier]
        return loops[:1]

    def _without_loops(self) -> dict[Entry, list[tuple[Entry, list[_Walk]]]]:
        left_out = {id(loop.step) for loop in self._loops}
        return {
            before: [
                (after, [(s[0], s[1], self._cost(s) - self._cycle) for s in options if id(s) not in left_out])
                for after, options in by_after.items()
                if after in self._to_end
            ]
            for before, by_after in self._layer.items()
        }

    # ---- walks ------------------------------------------------------------------------------------------------------

    def _seen(self, key: _Key) -> _Key:
        states = [loop.state for loop in self._loops]
        first, second = key[0] in states[:1], key[0] in states[1:]
        return key[0], key[1] or first, key[2] or second

    def _advanced(self, walks: _Walks) -> _Walks:
        most = self._ceiling * self._per[0] + self._budget * self._per[1] - self._run.length * self._cycle
        found: dict[_Key, set[_Walk]] = {}
        for key, labels in walks.items():
            least = min([extra for _, _, extra in labels])
            for after, steps in self._others.get(key[0], ()):
                known = found.setdefault(self._seen((after, key[1], key[2])), set())
                limit = most - self._to_end[after]
                for weight, error, extra in steps:
                    if least + extra < limit:
                        known.update([(w + weight, e + error, x + extra) for w, e, x in labels if x + extra < limit])
        return {key: kept for key, labels in found.items() if (kept := undominated(labels))}

    def _ended(
        self, labels: list[_Walk], key: _Key, suffix: Way, left: int
    ) -> Iterator[tuple[_Walk, tuple[int, int], int]]:
        """Walks that keep the budget with a suffix, where the layers left take loops, with their weight and error, and
        how many take the second."""
        _, first, second = key
        if left and first and second:
            (_, lighter), (_, heavier) = self._loops
            weight, error = suffix.weight + left * lighter.weight, suffix.error + left * lighter.error - self._budget
            more, less = heavier.weight - lighter.weight, lighter.error - heavier.error
            for walk in labels:
                over = walk[1] + error
                count = -(-over // less) if over > 0 else 0
                if count <= left:
                    yield walk, (walk[0] + weight + count * more, self._budget + over - count * less), count
        elif first or second or not left:
            weight, error = suffix.weight, suffix.error
            if left:
                loop = self._loops[0 if first else 1].step
                weight, error = weight + left * loop.weight, error + left * loop.error
            for walk in labels:  # by rising weight and falling error
                if walk[1] + error <= self._budget:
                    yield walk, (walk[0] + weight, walk[1] + error), 0 if first else left
                    return

    def _better(self, sums: tuple[int, int], best: tuple[int, int] | None) -> bool:
        if best is not None:
            return sums < best
        return sums[0] < self._ceiling or (sums[0] == self._ceiling and sums[1] < self._budget)

    # ---- the path ---------------------------------------------------------------------------------------------------

    def _traced(self, end: _End) -> list[Step]:
        """The steps of a walk and its loops."""
        taken, key, walk, suffix, second = end
        counted: _Counted = {}
        for loop, count in zip(self._loops, (self._run.length - taken - second, second), strict=False):
            counted.setdefault((loop.state, loop.state), []).extend([loop.step] * count)
        for level in range(taken - 1, -1, -1):
            key, walk, after, step = self._came(level, key, walk)
            counted.setdefault((key[0], after), []).append(step)
        start = next(way for way in self._prefixes[key[0]] if way[:2] == walk[:2])
        inner = _arranged(counted, end.key[0], self._order)
        own = []
        for steps, (before, after, step) in zip(self._stages[self._run.first :], inner, strict=False):
            own.append(steps[before][after][self._layer[before][after].index(step)])
        return [*start.steps, *own, *suffix.steps]

    def _came(self, level: int, key: _Key, walk: _Walk) -> tuple[_Key, _Walk, Entry, Step]:
        for before, labels in self._levels[level].items():
            if self._seen((key[0], before[1], before[2])) != key:
                continue
            known = {label[:2]: label for label in labels}
            for step in reversed(self._layer.get(before[0], {}).get(key[0], ())):
                label = known.get((walk[0] - step.weight, walk[1] - step.error))
                if label is not None and all(step is not loop.step for loop in self._loops):
                    return before, label, key[0], step
        raise AssertionError


def _suffixes(stages: list[Steps]) -> dict[Entry, list[Way]]:
    """The ways from each state to the end, through the stages behind the run."""
    found: dict[Entry, list[Way]] | None = None
    for steps in reversed(stages):
        current: dict[Entry, list[Way]] = {}
        for before, by_after in steps.items():
            ways = []
            for after, options in by_after.items():
                rest = [Way(0, 0, ())] if found is None else found.get(after, [])
                ways += [Way(s[0] + way[0], s[1] + way[1], (s, *way[2])) for s in options for way in rest]
            if ways:
                current[before] = front(ways)
        found = current
    return found or {}


def _cheapest_cycle(least: dict[tuple[Entry, Entry], int], states: int) -> int:
    """What a step of the cheapest cycle costs, rounded down."""
    found = []
    for start in {before for before, _ in least}:
        costs = {start: 0}
        for length in range(1, states + 1):
            following: dict[Entry, int] = {}
            for (before, after), cost in least.items():
                if before in costs:
                    total = costs[before] + cost
                    following[after] = min(following.get(after, total), total)
            costs = following
            if start in costs:
                found.append(costs[start] // length)
    return min(found)


def _order_of_states(stages: list[Steps], run: Run) -> list[Entry]:
    """The states in the order in which they are reached, those last that only earlier layers come to."""
    order: list[Entry] = [None]
    known = list[Entry]()
    for steps in stages[: run.first + len(stages[run.first])]:
        order = list(dict.fromkeys(after for before in order for after in steps.get(before, ())))
        known += order
    return list(dict.fromkeys([*order, *known]))


def _arranged(counted: _Counted, end: Entry, order: list[Entry]) -> list[tuple[Entry, Entry, Step]]:
    """Steps as a path that ends in a state: from the last one back, the first state that can be come from, and of the
    steps from there the heaviest."""
    left = {pair: sorted(steps, key=lambda step: step.weight) for pair, steps in counted.items() if steps}
    path: list[tuple[Entry, Entry, Step]] = []
    state = end
    while left:
        for before in order:
            steps = left.get((before, state))
            if steps and (before == state or _connected(left, before, state)):
                path.append((before, state, steps.pop()))
                if not steps:
                    del left[before, state]
                state = before
                break
        else:
            raise AssertionError
    return path[::-1]


def _connected(left: _Counted, before: Entry, after: Entry) -> bool:
    """True if all steps left but one from `before` to `after` are on paths that end in `before`."""
    pairs = [pair for pair, steps in left.items() if pair != (before, after) or len(steps) > 1]
    reached, more = {before}, True
    while more:
        new = {b for b, a in pairs if a in reached} - reached
        reached |= new
        more = bool(new)
    return all(a in reached for _, a in pairs)
