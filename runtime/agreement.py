"""Agreement between ranks: at start on everything that the choices depend on, before each forward on its size.

A rank chooses only by values that are equal on all ranks; a difference is one clear error on every rank, not a hang.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from .errors import BoundaryError, RefusedError
from .groups import Groups


def agree_at_start(groups: Groups, mine: dict[str, Any]) -> None:
    """Compare what every rank brings; raises RefusedError on all of them where a value differs."""
    if groups.control.size == 1:
        return
    everyone: list[Any] = [None] * groups.control.size
    dist.all_gather_object(everyone, mine, group=groups.control.handle)
    for field in mine:
        values = [theirs.get(field) for theirs in everyone]
        if any(value != values[0] for value in values):
            listing = ", ".join(f"rank {rank}: {value}" for rank, value in enumerate(values))
            raise RefusedError(f"the ranks were started with different values: {listing}", field=field)


class ForwardShape(NamedTuple):
    """What a rank brings to a forward."""

    mode: int
    batch: int
    seq: int
    logit_rows: int


def agree_on_forward(groups: Groups, mine: ForwardShape) -> list[ForwardShape]:
    """The shapes of all ranks; raises BoundaryError on all of them if ranks that share requests differ, or modes do."""
    if groups.control.size == 1:
        return [mine]
    table = torch.zeros(groups.control.size, len(mine), dtype=torch.int64)
    try:
        dist.all_gather(list(table.unbind(0)), torch.tensor(mine, dtype=torch.int64), group=groups.control.handle)
    except RuntimeError as error:
        raise BoundaryError(
            f"another rank is gone or stuck: {_first_line(error)}", where="start of the forward"
        ) from error
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


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
