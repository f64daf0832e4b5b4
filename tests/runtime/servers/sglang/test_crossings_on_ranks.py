"""Rows in shards over real ranks, as a server's stages ask for them: what comes out is what one rank computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist

from ...world import RankWorld
from .planned_stack import ServerGroup, stack_error, stack_plans

KINDS = ("scattered", "mixed", "own", "late", "own late")
COUNTS = [1, 2, 3, 7, 16, 33]  # those that ranks divide, and those that they do not


def errors_of(kind: str) -> dict[int, tuple[float, bool]]:
    """On a rank over gloo; collectives of our own are composed of gloo's."""
    from commplan.runtime.backends import gloo

    from .stand_ins import own_collectives_on_gloo

    group = ServerGroup(dist.get_rank(), dist.get_world_size(), dist.group.WORLD, dist.group.WORLD)
    plain = gloo.BACKEND
    own_collectives_on_gloo.register()
    try:
        return stack_error(
            stack_plans("gloo", "fp32", 32, 16, group.world_size)[kind], group, torch.device("cpu"), COUNTS
        )
    finally:
        gloo.BACKEND = plain


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stack_in_shards_computes_what_one_rank_does_by_exactly_the_planned_ops(
    kind: str, size: int, world: Callable[[int], RankWorld]
) -> None:
    for found in world(size).run(errors_of, kind):
        assert set(found) == set(COUNTS)
        for count, (error, exact) in found.items():
            assert error < 1e-5, (count, error)
            assert exact, count
