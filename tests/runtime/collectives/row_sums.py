"""Runs on a rank: sums of rows that travel as they are, through host memory and by gloo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from commplan.runtime.backends import load_backend
from commplan.runtime.collectives.carriers import Carrier
from commplan.runtime.collectives.wire_sums import WireSum
from commplan.runtime.errors import RefusedError
from commplan.runtime.ranks.groups import Group

from ...peer_cases import EPS
from ...wire_cases import WireCase
from .composed_sums import group_of
from .staged_sums import staging

DTYPES = (torch.bfloat16, torch.float16)
SHAPES = ((1, 64), (7, 200), (5, 97), (33, 512))


def by(carrier: Carrier | None, group: Group, width: int, pieces: int = 1) -> WireSum:
    return WireSum(load_backend("gloo"), group, None, width, "gather", pieces, carrier)


def case_of(group: Group, rows: int, width: int, dtype: torch.dtype) -> WireCase:
    return WireCase((group.rank, group.size), rows, width, dtype, rows)


def sum_of(parts: list[Tensor]) -> Tensor:
    """In fp32, in the order of ranks, rounded once."""
    total = parts[0].float()
    for part in parts[1:]:
        total = total + part.float()
    return total.to(parts[0].dtype)


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory that is asked for holds NaN, where nobody writes it."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def beside_torch(ranks: int, staged: bool) -> dict[str, bool]:
    """By type, shape and pieces: are the sum and the total with the residual torch's to the bit, and the norm near?"""
    group, carrier = staging(ranks) if staged else (group_of(ranks), None)
    found = {}
    for dtype in DTYPES:
        for rows, width in SHAPES:
            case = case_of(group, rows, width, dtype)
            for pieces in (1, 2, 4, 8):
                summing = by(carrier, group, width, pieces)
                with poisoned():
                    summed = summing.sum(case.mine)
                    out = summing.sum_norm(case.mine, case.residual, case.weight, EPS)
                same = torch.equal(summed, sum_of(case.parts))
                found[f"{dtype} {rows}x{width} {pieces}"] = same and case.norm_error(out, summed) <= 2.0
    if carrier is not None:
        carrier.check()
        carrier.close()
    return found


def other_ways(ranks: int) -> list[Any]:
    """[is the new residual in the old one's memory with the same bits, without a residual the sum, of no rows none,
    are a rank's own rows as they were, does a compiled function make the same calls]."""
    group, carrier = staging(ranks)
    case, summing = case_of(group, 5, 64, torch.bfloat16), by(carrier, group, 64, 2)
    x, old, before = case.mine, case.residual.clone(), case.mine.clone()
    wanted = summing.sum_norm(x, case.residual, case.weight, EPS)
    found = summing.sum_norm(x, old, case.weight, EPS, overwrite=True)
    alone = summing.sum_norm(x, None, case.weight, EPS)

    def layer(x: Tensor, residual: Tensor) -> tuple[Tensor, ...]:
        return summing.sum(x), *summing.sum_norm(x, residual, case.weight, EPS)

    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)(x, case.residual)
    carrier.check()
    return [
        found[1].data_ptr() == old.data_ptr() and all(map(torch.equal, found, wanted)),
        torch.equal(alone[1], summing.sum(x)),
        summing.sum(x[:0]).shape == (0, 64),
        torch.equal(x, before),
        all(map(torch.equal, compiled, (alone[1], *wanted))),
    ]


def own_place(ranks: int) -> list[bool]:
    """Does what is received, of each piece, have this rank's own place as it was made?"""
    group, carrier = staging(ranks)
    summing, found = by(carrier, group, 64, 2), []
    inner = carrier.start_all_gather

    def noting(got: Tensor, mine: Tensor, group: Group) -> Any:
        got.fill_(77)
        pending = inner(got, mine, group)
        own = got.view(group.size, -1)[group.rank]
        found.append(bool((own == 77).all()))
        return pending

    carrier.start_all_gather = noting  # type: ignore[method-assign]
    case = case_of(group, 4, 64, torch.bfloat16)
    found.append(torch.equal(summing.sum(case.mine), sum_of(case.parts)))
    return found


def not_come(ranks: int) -> list[bool]:
    """By type: are sums, and norms, of what has not come NaN, all of them?"""
    found = []
    for dtype in DTYPES:
        group, carrier = staging(ranks)
        summing = by(carrier, group, 97, 2)
        carrier.looks = 1
        carrier._flags.tell = lambda half, piece: None  # type: ignore[method-assign]
        x = torch.ones(3, 97, dtype=dtype)
        out = summing.sum(x), *summing.sum_norm(x, x, x[0], EPS)
        found.append(all(bool(each.isnan().all()) for each in out))
    return found


def in_two_shots(ranks: int) -> str:
    """What is said of rows as they are in two shots."""
    try:
        WireSum(load_backend("gloo"), group_of(ranks), None, 64, "two_shot")
    except RefusedError as error:
        return str(error)
    return ""
