"""Same input, same bytes out: whatever the hash seed, the process, and what was asked before."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from commplan.planner.answers.to_file import plan_setup
from commplan.planner.descriptions.loader import load_setup, preset_names
from commplan.planner.search.planning import ModePlanner
from commplan.planner.strategy.file import dump

_PLAN_ALL = """
import hashlib
from commplan.planner.answers.to_file import plan_setup
from commplan.planner.descriptions.loader import load_setup, preset_names
from commplan.planner.strategy.file import dump
for name in preset_names("deployments"):
    print(name, hashlib.sha256(dump(plan_setup(load_setup(name))).encode()).hexdigest())
"""


@pytest.mark.slow
def test_two_processes_with_different_hash_seeds_write_the_same_bytes():
    outputs = set()
    for seed in ("0", "20251"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", _PLAN_ALL], env=environment, capture_output=True, text=True, check=True
        )
        outputs.add(done.stdout)
    (output,) = outputs
    assert [line.split()[0] for line in output.splitlines()] == list(preset_names("deployments"))


def test_planning_twice_writes_the_same_bytes():
    setup = load_setup("qwen3-32b-a2-tp2")
    assert dump(plan_setup(setup)) == dump(plan_setup(load_setup("qwen3-32b-a2-tp2"))) == dump(plan_setup(setup))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), [("qwen3-235b-h200-dp4", "prefill"), ("qwen3-32b-a2-tp2", "decode")])
def test_what_was_asked_before_does_not_change_a_plan(name, mode):
    counts = list(range(1, 257, 5))
    asked = ModePlanner(load_setup(name), mode)
    in_order = {tokens: [str(e.op) for e in asked.best(tokens).edges] for tokens in counts}
    other = ModePlanner(load_setup(name), mode)
    other.ranges()
    for tokens in random.Random(5).sample(counts, len(counts)):
        other.uniforms(tokens)
        assert [str(e.op) for e in other.best(tokens).edges] == in_order[tokens]
