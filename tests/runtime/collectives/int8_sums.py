"""Runs on a rank: INT8 sums at one boundary, against float64 and against a reference of their own."""

from __future__ import annotations

from typing import NamedTuple

import torch

from commplan.planner.strategy.layout import LayerShape, Parallelism, State
from commplan.planner.strategy.ops import Op
from commplan.runtime.backends import load_backend
from commplan.runtime.bound.bound_ops import bind_out
from commplan.runtime.bound.counts import Count, Place
from commplan.runtime.bound.sizes import sizes_of
from commplan.runtime.ranks.groups import Groups, make_groups

FULL = State("replicated", "replicated")
_groups: dict[int, Groups] = {}


class Sample(NamedTuple):
    """What came out of one sum, in float64, with what went in on every rank: [ranks, tokens, width]."""

    partials: torch.Tensor
    got: torch.Tensor


def run_sum(ranks: int, algorithm: str, partials: torch.Tensor, *, transposed: bool = False) -> torch.Tensor:
    """This rank's part of `partials` through the bound op of an mlp_out boundary."""
    if ranks not in _groups:
        _groups[ranks] = make_groups(Parallelism(ranks), 60.0)
    groups = _groups[ranks]
    place = Place(0, "mlp_out", Op("int8_all_reduce", algorithm=algorithm), FULL, FULL, LayerShape())
    bound = bind_out(place, groups, load_backend("gloo"), Count("prefill", place, "gloo", 0.0))
    mine = partials[groups.tp.rank]
    if transposed:
        mine = mine.t().contiguous().t()
        assert not mine.is_contiguous() or min(mine.shape) <= 1
    return bound.sum(
        mine.clone(memory_format=torch.preserve_format), sizes_of(groups.parallelism, len(mine), len(mine))
    )


def samples(
    ranks: int, algorithm: str, shapes: list[tuple[int, int]], dtype: torch.dtype, *, transposed: bool = False
) -> list[Sample]:
    """Sums of normal partials with outliers, of rows of very different size."""
    found = []
    for tokens, width in shapes:
        generator = torch.Generator().manual_seed(tokens * 1000 + width)
        partials = torch.randn(ranks, tokens, width, generator=generator, dtype=torch.float64)
        partials *= 10 ** torch.empty(ranks, tokens, 1, dtype=torch.float64).uniform_(-3, 3, generator=generator)
        partials[..., ::17] *= 20
        partials = partials.to(dtype)
        found.append(Sample(partials.double(), run_sum(ranks, algorithm, partials, transposed=transposed).double()))
    return found


def normal_sample(ranks: int, algorithm: str) -> Sample:
    """Enough elements for statistics."""
    partials = torch.randn(ranks, 64, 1024, generator=torch.Generator().manual_seed(7))
    return Sample(partials.double(), run_sum(ranks, algorithm, partials).double())


def special_rows(ranks: int, algorithm: str, value: float, dtype: torch.dtype) -> list[torch.Tensor]:
    """Row 1 of the last rank holds `value` once, row 3 is zero everywhere; what comes out."""
    partials = torch.randn(ranks, 5, 33, generator=torch.Generator().manual_seed(3)).to(dtype)
    partials[-1, 1, 4] = value
    partials[:, 3] = 0
    return [partials, run_sum(ranks, algorithm, partials)]
