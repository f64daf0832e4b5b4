"""Fixtures of the planner's tests."""

from __future__ import annotations

import pytest

from .tiny_setups import SetupFolder


@pytest.fixture
def folder(tmp_path):
    """Where small setups are written: `folder.setup(dense_model(), Machine(...), tp=4)`."""
    return SetupFolder(tmp_path)
