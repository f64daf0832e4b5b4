"""The same checkpoints through transformers' own tensor parallelism give the logits of our all-reduce plan.

transformers shards over two ranks what has a plan of its own, up to 5.17 only where the ranks divide the vocabulary.
For gpt-oss and DeepSeek-V4 it has one for experts alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from commplan.planner.strategy.file import Parallelism

from ..parity import Named
from ..strategy_files import uniform
from ..world import RankWorld
from .tiny_models import FAMILIES
from .transformers_peer import compared

SHARDED_BY_BOTH = [name for name in FAMILIES if name not in ("gpt_oss", "deepseek_v4")]


@pytest.mark.slow
@pytest.mark.parametrize("family", SHARDED_BY_BOTH)
def test_plain_all_reduce_computes_what_transformers_computes_on_two_ranks(
    family: str, checkpoint: Callable[..., Path], world: Callable[[int], RankWorld], tmp_path: Path
) -> None:
    folder = checkpoint(family, vocab_size=132)
    plan = Named("all_reduce", uniform(folder, Parallelism(2), "all_reduce", tmp_path))
    for error, sharded_parameters in world(2).run(compared, str(folder), plan):
        assert error <= 2e-5
        assert sharded_parameters >= 2 * 3, "the peer is one process"
