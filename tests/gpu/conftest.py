"""Real GPUs: `make test-gpu`. Elsewhere everything here is skipped."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    if torch.cuda.is_available() and torch.cuda.device_count() >= 2:
        return
    here = __file__.rsplit("/", 1)[0]
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.skip(reason="needs two NVIDIA GPUs: make test-gpu"))
