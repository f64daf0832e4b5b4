"""Real GPUs: `make test-gpu`. Elsewhere everything here is skipped.

On a machine with one GPU both ranks use it, in turn: the same compiled kernels wait for rows of another process, but no
link is between them. What needs NCCL, which takes one rank a GPU, is skipped there.
"""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    from .machine import gpus

    found = gpus()
    here = __file__.rsplit("/", 1)[0]
    for item in items:
        if not str(item.path).startswith(here):
            continue
        if found == 0 or (found == 1 and item.get_closest_marker("two_gpus")):
            needed = "two NVIDIA GPUs" if found else "an NVIDIA GPU, or better two"
            item.add_marker(pytest.mark.skip(reason=f"needs {needed}: make test-gpu"))
