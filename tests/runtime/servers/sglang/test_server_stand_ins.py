"""What stands in for compiled ops where servers are measured and calls SGLang's own kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
EXPERTS = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from sgl_kernel_stand_in import moe_sum_reduce
torch.manual_seed(0)
for experts, width in ((8, 4096), (9, 7168), (3, 100)):
    parts = torch.randn(5, experts, width).bfloat16()
    out = torch.empty(5, width, dtype=torch.bfloat16)
    moe_sum_reduce(parts, out, 2.5)
    torch.testing.assert_close(out, (parts.double().sum(1) * 2.5).bfloat16(), rtol=0.01, atol=1e-5)
"""


@pytest.mark.slow
def test_the_stand_in_sums_experts_as_they_are_summed() -> None:
    stand_ins = Path(__file__).parent / "stand_ins"
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(stand_ins)}
    command = [sys.executable, "-W", "ignore", "-c", EXPERTS, str(ROOT / "benchmarks" / "servers" / "site")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
