"""Time of sweeps of 1000 points, the sort that shares everything (token counts) and the sorts that share little.

python benchmarks/planner/sweeps.py
"""

from __future__ import annotations

import time

from commplan.planner.descriptions.loader import load_setup
from commplan.planner.what_if.sweep import Sweep

SWEEPS = (
    ("qwen3.5-397b-h200-dp4", "decode", ("tokens=8..1007",)),
    ("deepseek-r1-h20-tp8", "prefill", ("link_bandwidth=100..1099",)),
    ("qwen3-235b-h200-tp8", "prefill", ("error_budget=0.001..0.1:+0.0001",)),
    ("deepseek-r1-h20-tp8", "prefill", ("tokens=1..250", "tp=2,4,8,16")),
)


def main() -> None:
    for deployment, mode, vary in SWEEPS:
        base = load_setup(deployment)
        sweep = Sweep.of(deployment, (), vary, mode, base.deployment.modes[mode].tokens[1], base)
        start = time.process_time()
        legal = sum(point.legal for point in sweep.points())
        seconds = time.process_time() - start
        print(f"{deployment:24} {' '.join(vary):36} {sweep.size} points, {legal} legal: {seconds:.1f} s of one core")


if __name__ == "__main__":
    main()
