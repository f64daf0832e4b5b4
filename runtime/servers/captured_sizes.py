"""CUDA graphs and token ranges.

A graph freezes what Python decided when it was captured, and a batch is padded up to the next captured size. The plan
then holds as written if every batch that a graph serves lies in the range of its captured size: no captured size may
have the end of a range strictly between the size below it and itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from commplan.planner.strategy.file import RangePlan, StrategyFile

from ..errors import RefusedError

# A few small sizes, then steps that pad a batch by less than a tenth or so.
_SMALL = (1, 2, 4, 8, 12, 16, 24, 32)


def check_captured(file: StrategyFile, sizes: Iterable[int], flag: str) -> None:
    """Raises RefusedError where a captured decode batch straddles the end of a range, naming the sizes to
    capture, and the server's flag that names them."""
    captured = sorted(set(sizes))
    ranges = file.modes.get("decode", ())
    for edge in straddled(ranges, captured):
        size = captured[bisect_left(captured, edge)]
        wanted = " ".join(map(str, sorted({*captured, *_edges_below(ranges, captured[-1])})))
        raise RefusedError(
            f"batches of up to {edge} tokens and of more have plans of their own, and the graph captured at {size} "
            f"would serve both; start with {flag} {wanted}",
            field=flag,
            value=" ".join(map(str, captured)),
        )


def straddled(ranges: Sequence[RangePlan], captured: Sequence[int]) -> list[int]:
    """Ends of ranges that a graph would cross: below the largest captured size, and not captured themselves."""
    return [] if not captured else [edge for edge in _edges_below(ranges, captured[-1]) if edge not in captured]


def sizes_for(ranges: Sequence[RangePlan]) -> list[int]:
    """Decode batch sizes to capture: the usual steps up to the last count, and every end of a range."""
    most = ranges[-1].last
    steps = [*_SMALL, *range(40, 161, 8), *range(176, 513, 16), *range(544, 1025, 32)]
    return sorted({size for size in steps if size <= most} | {r.last for r in ranges if r.last <= steps[-1]})


def _edges_below(ranges: Sequence[RangePlan], most: int) -> list[int]:
    return [plan.last for plan in ranges if plan.last < most]
