"""On the prompts of the tests, no selection of experts or tokens depends on the order of float additions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from .parity import single_process
from .prompts import LEAST_MARGIN, recorded_margins, requests
from .transformers.tiny_models import FAMILIES

SELECTING = [name for name, family in FAMILIES.items() if "num_experts_per_tok" in family.fields]


@pytest.mark.slow
@pytest.mark.parametrize("family", SELECTING)
def test_no_selection_is_near_another_outcome(family: str, checkpoint: Callable[..., Path]) -> None:
    model = single_process(str(checkpoint(family)))
    with torch.no_grad(), recorded_margins() as margins:
        model(requests(), use_cache=False)
    assert margins and min(margins) > LEAST_MARGIN
