"""What the plugin and the planner take from SGLang's prefill graphs stands so in the SGLang that is installed."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from commplan.planner.executors import load_executor
from commplan.runtime.servers.sglang.command import needed
from commplan.runtime.servers.sglang.words import MOST_LATENT, PREFILL_GRAPHS, PREFILL_STEPS

from .fakes import PLAIN, a_range, strategy
from .server import STAND_INS
from .test_stock_rules import constant

_FOUND = importlib.util.find_spec("sglang")
pytestmark = pytest.mark.skipif(_FOUND is None, reason="needs SGLang, in an environment of its own: make test-sglang")

ROOT = Path(__file__).parents[4]
RUNNER = "srt/model_executor/runner/prefill_cuda_graph_runner.py"


def source(file: str) -> str:
    assert _FOUND is not None and _FOUND.submodule_search_locations
    return (Path(_FOUND.submodule_search_locations[0]) / file).read_text(encoding="utf-8")


@cache
def function(file: str, name: str) -> str:
    """The text of a function, as Python would print it: without comments and line breaks of its own."""
    for node in ast.walk(ast.parse(source(file))):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return ast.unparse(node)
    raise AssertionError(f"{file} of the SGLang that is installed has no function {name}")


def test_a_prefill_that_a_graph_would_pad_to_more_than_twice_its_tokens_runs_eagerly() -> None:
    assert constant(RUNNER, "_MAX_PREFILL_CUDA_GRAPH_PADDING_FACTOR") == PREFILL_GRAPHS.padding
    eager = "padded_num_tokens > num_tokens * _MAX_PREFILL_CUDA_GRAPH_PADDING_FACTOR"
    assert eager in function(RUNNER, "can_replay_locally")


def test_it_captures_the_prefills_that_launch_adds_the_ends_of_ranges_to() -> None:
    defined: dict[str, object] = {}
    exec(function("srt/arg_groups/cuda_graph_hook.py", "generate_prefill_cuda_graph_batch_sizes"), defined)
    theirs = defined["generate_prefill_cuda_graph_batch_sizes"]
    assert callable(theirs)
    assert theirs(PREFILL_STEPS[-1]) == list(PREFILL_STEPS)
    for most in (300, 5000, 16384):
        assert captured(most) == sorted({17, *theirs(most)})


def captured(most: int) -> list[int]:
    """The prefills that launch names for a plan of two ranges."""
    file = strategy(modes={"prefill": (a_range(1, 17, PLAIN), a_range(18, most, PLAIN))})
    file = replace(file, hardware=replace(file.hardware, backend="nccl"))
    (flag,) = [flag for flag in needed(file) if flag.name == PREFILL_GRAPHS.flag]
    return [int(size) for size in flag.values]


def test_of_a_model_with_mla_it_captures_no_longer_prefills_than_the_plan_counts_on() -> None:
    default = function("srt/arg_groups/memory_hook.py", "handle_gpu_memory_settings")
    assert f"max_bs = min({MOST_LATENT}, cfg.chunked_prefill_size)" in default
    assert "max_bs = cfg.chunked_prefill_size" in default
    executor = load_executor("sglang")
    assert executor.stock is not None
    for rules in (executor.host.graphs, executor.stock.graphs):
        with_mla, other = [rule for rule in rules if rule.modes is not None and "prefill" in rule.modes]
        assert (with_mla.mla, with_mla.max_tokens, other.max_tokens) == (True, MOST_LATENT, None)


def test_a_capture_calls_the_body_alone_and_a_replay_stands_in_its_place() -> None:
    assert "self.layer_model.forward(input_ids, positions, forward_batch" in function(RUNNER, "_run_forward")
    replay = function(RUNNER, "_execute_body_capture")
    assert "self.layer_model.forward = replay_layer_forward" in replay
    assert "self.model_runner.model.forward(tail_batch.input_ids, tail_batch.positions, tail_batch" in replay
    assert "self._execute_body_capture(" in function(RUNNER, "execute")
    raw = function("srt/model_executor/model_runner.py", "_forward_raw")
    assert "self.prefill_cuda_graph_runner.execute(" in raw


def test_mixed_batches_replay_the_graphs_of_prefills() -> None:
    loading = function(RUNNER, "load_batch")
    assert "ForwardMode.EXTEND if forward_batch.forward_mode == ForwardMode.MIXED" in loading


@pytest.mark.slow
def test_the_runner_of_sglang_itself_is_followed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.runtime.servers.sglang.prefill_runner"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(STAND_INS), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "captured 16 32, replayed 16 32 32, eager 40: as planned"
