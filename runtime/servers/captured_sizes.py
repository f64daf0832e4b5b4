"""CUDA graphs and token ranges.

A graph freezes what Python decided when it was captured, and a batch is padded up to the next captured size. The plan
then holds as written if every batch that a graph serves lies in the range of its captured size: no captured size may
have the end of a range between the smallest batch it serves and itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from commplan.planner.strategy.file import RangePlan, StrategyFile

from ..errors import RefusedError

# A few small sizes, then steps that pad a batch by less than a tenth or so.
_SMALL = (1, 2, 4, 8, 12, 16, 24, 32)


class Captures(NamedTuple):
    """How a server captures the forwards of a mode.

    flag      the server's, that names the sizes
    padding   a batch that would be padded to more than so many times its tokens runs eagerly; None: none does
    """

    mode: str
    flag: str
    padding: int | None = None


def check_captured(file: StrategyFile, sizes: Iterable[int], how: Captures) -> None:
    """Raises RefusedError where a captured batch straddles the end of a range, naming the sizes to capture, and the
    server's flag that names them."""
    captured = sorted(set(sizes))
    ranges = file.modes.get(how.mode, ())
    for edge in straddled(ranges, captured, how.padding):
        size = captured[bisect_left(captured, edge)]
        wanted = {*captured, *_edges_below(ranges, captured[-1])}
        raise _refused(
            how,
            captured,
            f"batches of up to {edge} tokens and of more have plans of their own, and the graph captured at {size} "
            f"would serve both; start with {how.flag} {_listed(wanted)}",
        )


def check_within(file: StrategyFile, sizes: Iterable[int], how: Captures) -> None:
    """Raises RefusedError for a captured size beyond the last tokens of the plan: what runs there is in no range."""
    captured, ranges = sorted(set(sizes)), file.modes.get(how.mode, ())
    if not captured or not ranges or captured[-1] <= ranges[-1].last:
        return
    last = ranges[-1].last
    wanted = {size for size in captured if size < last} | {last, *_edges_below(ranges, last)}
    raise _refused(
        how,
        captured,
        f"the plan ends at {last} {how.mode} tokens, and the graph captured at {captured[-1]} would pad batches to "
        f"more; start with {how.flag} {_listed(wanted)}",
    )


def _refused(how: Captures, captured: list[int], why: str) -> RefusedError:
    return RefusedError(why, field=how.flag, value=_listed(captured))


def _listed(sizes: Iterable[int]) -> str:
    return " ".join(map(str, sorted(sizes)))


def straddled(ranges: Sequence[RangePlan], captured: Sequence[int], padding: int | None = None) -> list[int]:
    """Ends of ranges that a graph would cross: below the largest captured size, and not captured themselves.

    A batch at the end of a range that is too small for the next graph to pad it runs eagerly, and so do all below it.
    """
    if not captured:
        return []
    crossed = [edge for edge in _edges_below(ranges, captured[-1]) if edge not in captured]
    if padding is None:
        return crossed
    return [edge for edge in crossed if captured[bisect_left(captured, edge)] <= padding * edge]


def sizes_for(ranges: Sequence[RangePlan]) -> list[int]:
    """Decode batch sizes to capture: the usual steps up to the last count, and every end of a range."""
    most = ranges[-1].last
    steps = [*_SMALL, *range(40, 161, 8), *range(176, 513, 16), *range(544, 1025, 32)]
    return sorted({size for size in steps if size <= most} | {r.last for r in ranges if r.last <= steps[-1]})


def with_ends(ranges: Sequence[RangePlan], steps: Iterable[int]) -> list[int]:
    """Sizes that a server captures by itself, and every end of a range up to the largest of them."""
    sizes = sorted(size for size in steps if size <= ranges[-1].last)
    return sorted({*sizes, *_edges_below(ranges, sizes[-1])}) if sizes else []


def _edges_below(ranges: Sequence[RangePlan], most: int) -> list[int]:
    return [plan.last for plan in ranges if plan.last < most]
