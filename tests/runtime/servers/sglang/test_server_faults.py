"""A rank that dies takes the server with it, and the log says which."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from .plans import fused, written
from .server import members, serving, tail, wait_until

pytestmark = pytest.mark.slow

WITHIN_S = 120  # SGLang looks after its processes every second; busy cores take longer to end them
REASONS = r"Subprocess scheduler_1 .* crashed|Connection (reset|closed) by peer"
"""Who hears of it first: the launcher, or the rank that waits for it."""


def test_a_rank_that_dies_ends_the_server_with_the_reason(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model = checkpoint("qwen3")
    with serving(model, tmp_path, written(fused(model), tmp_path / "plan.yaml")) as server:
        server.generate([1, 2, 3], new_tokens=1)
        os.kill(scheduler_of(server.process.pid, "TP1"), signal.SIGKILL)
        assert wait_until(lambda: not members(server.process.pid), WITHIN_S), tail(server.log)
        server.process.wait(timeout=10)
        assert server.process.returncode != 0
    said = server.log.read_text(errors="replace")
    assert re.search(REASONS, said), tail(server.log)


def scheduler_of(session: int, rank: str) -> int:
    """The process of a rank."""
    for member in members(session):
        title = Path(f"/proc/{member}/cmdline").read_bytes().decode(errors="replace")
        if "scheduler" in title and rank in title:
            return member
    raise AssertionError(f"no scheduler of {rank} in the session {session}")
