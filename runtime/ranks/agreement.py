"""Agreement between ranks: at start on everything that choices depend on, before each forward on its size.

A rank chooses only by values that are equal on all ranks; a difference, or a refusal that one rank alone finds, is one
clear error on every rank, not a hang.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from commplan.planner.strategy.file import CommplanError, parse_json

from ..errors import BoundaryError, RefusedError
from .groups import Group, Groups

_MOST_BYTES = 64 * 1024 * 1024  # of what one rank tells

Exchange = Callable[[Any], list[Any]]
"""What this rank brings to what every rank brings, by rank. Plain values: text, numbers, lists, mappings."""


def exchange_over(group: Group) -> Exchange:
    """Exchange over a gloo group."""

    def exchange(mine: Any) -> list[Any]:
        return gather_json(mine, group.handle, group.size)

    return exchange


def gather_json(mine: Any, handle: Any, size: int) -> list[Any]:
    """What every rank of a gloo group brings, by rank: JSON in rows of bytes. A pickle could run code in its reader."""
    if size == 1:
        return [mine]
    data = torch.frombuffer(bytearray(as_json(mine)), dtype=torch.uint8)
    lengths = torch.zeros(size, 1, dtype=torch.int64)
    try:
        dist.all_gather(list(lengths.unbind(0)), torch.tensor([len(data)]), group=handle)
        longest = int(lengths.max())
        if not 0 < int(lengths.min()) <= longest <= _MOST_BYTES:
            raise BoundaryError(f"ranks tell 1 to {_MOST_BYTES} bytes, not {lengths.flatten().tolist()}", where="start")
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(data)] = data
        everyone = torch.empty(size, longest, dtype=torch.uint8)
        dist.all_gather(list(everyone.unbind(0)), padded, group=handle)
    except RuntimeError as error:
        raise BoundaryError(f"another rank is gone or stuck: {first_line(error)}", where="start") from error
    return [
        from_json(bytes(row[:length].tolist()), rank)
        for rank, (row, length) in enumerate(zip(everyone, lengths.flatten().tolist(), strict=True))
    ]


def as_json(mine: Any) -> bytes:
    """What a rank tells the others."""
    return json.dumps(mine, allow_nan=False).encode()


def from_json(told: bytes, rank: int) -> Any:
    """What a rank has told, read strictly; raises BoundaryError for anything but JSON."""
    try:
        return parse_json(told.decode())
    except (CommplanError, ValueError) as error:
        raise BoundaryError(f"rank {rank} tells what is not JSON: {first_line(error)}", where="start") from None


@contextmanager
def together(exchange: Exchange) -> Iterator[dict[str, str]]:
    """A step that succeeds on all ranks or on none.

    The block fills the mapping with values that must be equal on all ranks. Raises RefusedError on every rank where a
    value differs or the block raises on any of them; the rank whose block raised keeps its own error.
    """
    values: dict[str, str] = {}
    try:
        yield values
    except Exception as error:
        exchange([_told(error), {}])
        raise
    everyone = [_brought(told, rank) for rank, told in enumerate(exchange([None, values]))]
    for rank, (problem, _) in enumerate(everyone):
        if problem is not None:
            raise RefusedError(f"rank {rank} cannot go on: {problem}", field="start")
    for field, mine in values.items():
        theirs = [brought.get(field) for _, brought in everyone]
        if any(value != mine for value in theirs):
            listing = ", ".join(f"rank {rank}: {value}" for rank, value in enumerate(theirs))
            raise RefusedError(f"the ranks were started with different values: {listing}", field=field)


def _brought(told: Any, rank: int) -> tuple[str | None, dict[str, str]]:
    """A rank's problem and values; raises BoundaryError where it tells something of another shape."""
    if isinstance(told, list) and len(told) == 2:
        problem, values = told
        texts = isinstance(values, dict) and all(isinstance(value, str) for value in values.values())
        if texts and (problem is None or isinstance(problem, str)):
            return problem, values
    raise BoundaryError(f"rank {rank} runs another version of commplan, or is none", where="start")


def _told(error: Exception) -> str:
    expected = type(error).__module__.startswith("commplan")
    return str(error) if expected else f"{type(error).__name__}: {first_line(error)}"


class ForwardShape(NamedTuple):
    """What a rank brings to a forward."""

    mode: int
    batch: int
    seq: int
    logit_rows: int


def gather_numbers(group: Group, mine: torch.Tensor) -> torch.Tensor:
    """[N] whole numbers of each rank of a gloo group to [ranks, N]."""
    table = torch.zeros(group.size, len(mine), dtype=torch.int64)
    try:
        dist.all_gather(list(table.unbind(0)), mine, group=group.handle)
    except RuntimeError as error:
        raise BoundaryError(
            f"another rank is gone or stuck: {first_line(error)}", where="start of the forward"
        ) from error
    return table


def agree_on_forward(groups: Groups, mine: ForwardShape) -> list[ForwardShape]:
    """The shapes of all ranks; raises BoundaryError on all of them if ranks that share requests differ, or modes do."""
    if groups.control.size == 1:
        return [mine]
    table = gather_numbers(groups.control, torch.tensor(mine, dtype=torch.int64))
    shapes = [ForwardShape(*row) for row in table.tolist()]
    attn_tp = groups.parallelism.attn_tp
    for rank, shape in enumerate(shapes):
        leader = shapes[rank // attn_tp * attn_tp]
        if shape != leader or shape.mode != shapes[0].mode:
            listing = ", ".join(f"rank {r}: {tuple(s)}" for r, s in enumerate(shapes))
            raise BoundaryError(
                f"the ranks disagree on (mode, batch, sequence, logit rows) of this forward: {listing}",
                where="start of the forward",
            )
    return shapes


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
