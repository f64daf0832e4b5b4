"""Checkpoints are made by a process that has the stand-ins: transformers wants torchvision where it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .server import STAND_INS

ROOT = Path(__file__).parents[4]


def make(family: str, folder: Path) -> Path:
    """A tiny checkpoint of a family; raises with its output where that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.runtime.servers.sglang.checkpoints", family, str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(STAND_INS), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
