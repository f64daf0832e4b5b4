"""What holds for all tests."""

from __future__ import annotations

import gc

import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported stays for good: the collector need not look through it whenever a test makes many objects."""
    gc.collect()
    gc.freeze()
