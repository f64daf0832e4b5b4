"""Fixtures of the planner's tests."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from .tiny_setups import SetupFolder

settings.register_profile(
    "planner",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("planner")


@pytest.fixture
def folder(tmp_path):
    """Where small setups are written: `folder.setup(dense_model(), Machine(...), tp=4)`."""
    return SetupFolder(tmp_path)
