"""Qwen3.5 is published as a model with images: its text is executed from such checkpoints as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from commplan.planner.strategy.file import Parallelism

from ..parity import Named, failures
from ..strategy_files import uniform
from ..world import RankWorld
from .tiny_models import WITH_IMAGES


@pytest.mark.slow
@pytest.mark.parametrize("p", [Parallelism(2), Parallelism(4, 2)], ids=lambda p: f"tp{p.tp}-dp{p.attn_dp}")
@pytest.mark.parametrize("family", WITH_IMAGES)
def test_the_text_of_a_model_with_images_computes_the_logits_of_one_process(
    family: str, p: Parallelism, checkpoint: Callable[..., Path], world: Callable[[int], RankWorld], tmp_path: Path
) -> None:
    folder = checkpoint(f"{family}+images")
    plans = [Named(strategy, uniform(folder, p, strategy, tmp_path)) for strategy in ("all_reduce", "tp_sp")]
    found = [text for texts in world(p.tp).run(failures, str(folder), plans, 2e-5) for text in texts]
    assert not found, "\n".join(found)
